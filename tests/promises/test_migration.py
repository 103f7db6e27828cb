"""Files of another version of the program: each is read, or refused with a sentence that says which is newer."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lpe_eval import table
from lpe_eval.cli import app
from lpe_eval.errors import CheckpointError, OutputError, SpecError, UnknownName
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.report.folders.ppl import open_run, read_run
from lpe_eval.report.folders.speed import SpeedFolder
from lpe_eval.report.frames import read_csv
from lpe_eval.spec.model_spec import CHECKPOINT_SCHEMA
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.spec.speed_spec import SpeedSpec
from lpe_eval.spec.tasks import load_yaml, parse_spec, read_task
from lpe_eval.spec.train_spec import TrainSpec
from lpe_eval.table import SCHEMA
from tests.support.native_checkpoints import checkpoint

ROOT = Path(__file__).parents[2]
OLDER, NEWER = SCHEMA - 1, SCHEMA + 1


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    checkpoint(folder / "tiny")
    (folder / "a.txt").write_text("some words and " * 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert CliRunner().invoke(app, ppl()).exit_code == 0
    return folder


@pytest.fixture
def run(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def ppl(*more: str) -> list[str]:
    return ["ppl", "-m", "tiny", "--data", "a.txt", "--lengths", "16,32", "--protocol", "nonoverlap",
            "--max-tokens", "200", "-q", "--out", "run", *more]  # fmt: skip


def told(argv: list[str], code: int) -> str:
    result = CliRunner().invoke(app, argv)
    assert result.exit_code == code, result.output
    assert len([line for line in result.stderr.splitlines() if line.startswith("error:")]) == (code != 0)
    return result.stderr


def mark(run: Path, schema: object) -> None:
    marker = json.loads((run / "run.json").read_text())
    assert marker["schema"] == SCHEMA
    (run / "run.json").write_text(json.dumps({**marker, "schema": schema}))


@pytest.mark.parametrize(("schema", "sentence"), [
    (OLDER, f"run was written by an older lpe-eval (table {OLDER}, here {SCHEMA}); measure anew, with --overwrite"),
    (NEWER, f"run was written by a newer lpe-eval (table {NEWER}, here {SCHEMA}); update lpe-eval"),
])  # fmt: skip
def test_a_run_of_another_version_is_neither_read_nor_gone_on_with(run: Path, schema: int, sentence: str):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "run.json"}
    mark(run, schema)
    with pytest.raises(OutputError) as error:
        read_run(run)
    assert sentence in str(error.value)
    for argv in (["plot", "run"], ppl()):
        assert sentence in told(argv, 1)
    assert before == {path: path.read_bytes() for path in before}
    told(ppl("--overwrite"), 0)
    assert set(read_run(run).rows.schema) == {SCHEMA}


@pytest.mark.parametrize("schema", ["1", 1.5, None, True, [1]])
def test_a_run_whose_version_is_no_number_is_damaged(run: Path, schema: object):
    mark(run, schema)
    with pytest.raises(OutputError, match=r"run\.json is damaged"):
        read_run(run)
    assert "run.json is damaged" in told(ppl(), 1)


@pytest.mark.parametrize("schema", [OLDER, NEWER])
def test_cells_of_another_version_are_measured_again(run: Path, schema: int):
    whole = (run / "rows.csv").read_bytes()
    first, second = sorted((run / "cells").glob("*.json"))
    old = json.loads(first.read_text())
    old["rows"][0][11] = "a metric that was"
    first.write_text(json.dumps({**old, "schema": schema}))
    kept = second.stat().st_mtime_ns
    with open_run(run, (run / "spec.yaml").read_text(), json.loads((run / "run.json").read_text())["run"]) as store:
        assert len(store.finished()) == 1
    told(ppl(), 0)
    assert (run / "rows.csv").read_bytes() == whole
    assert second.stat().st_mtime_ns == kept


@pytest.mark.parametrize("schema", [OLDER, NEWER])
def test_a_table_whose_rows_are_of_another_version_is_refused(run: Path, schema: int):
    rows = list(csv.reader((run / "rows.csv").read_text().splitlines()))
    rows[2][rows[0].index("schema")] = str(schema)
    (run / "rows.csv").write_text("\n".join(",".join(row) for row in rows) + "\n")
    with pytest.raises(OutputError, match=rf"written in version {schema} of the table, here it is {SCHEMA}; measure"):
        read_run(run)


def test_a_table_with_other_columns_is_refused(run: Path):
    text = (run / "rows.csv").read_text()
    (run / "rows.csv").write_text(text.replace("ci_method", "method"))
    with pytest.raises(OutputError, match="does not have the columns of this version of lpe-eval; measure anew"):
        read_run(run)


@pytest.mark.parametrize("schema", [OLDER, NEWER])
def test_speeds_of_another_version_are_refused(tmp_path: Path, schema: int):
    with SpeedFolder(tmp_path / "speed", "one", "kind: speed\n") as folder:
        folder.write_rows([{**dict.fromkeys((each.name for each in table.SPEED), None), "schema": schema}])
        with pytest.raises(OutputError, match=f"written in version {schema} of the table"):
            folder.rows()


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        (CHECKPOINT_SCHEMA + 1, "newer than this program knows; upgrade lpe-eval"),
        (0, "has schema 0, which no lpe-eval has written"),
        (-3, "has schema -3, which no lpe-eval has written"),
        ("1", "has schema '1', which no lpe-eval has written"),
        (1.0, "has schema 1.0, which no lpe-eval has written"),
        (True, "has schema True, which no lpe-eval has written"),
        (None, "has schema None, which no lpe-eval has written"),
    ],
)
def test_a_native_checkpoint_of_another_version_is_refused(run: Path, schema: object, sentence: str):
    config = yaml.safe_load(Path("tiny/config.yaml").read_text())
    Path("tiny/config.yaml").write_text(yaml.safe_dump({**config, "schema": schema}))
    with pytest.raises(CheckpointError) as error:
        locate("tiny").load(LoadOptions())
    assert sentence in str(error.value)
    for argv in (ppl("--overwrite"), ["inspect", "tiny"], ["convert", "tiny", "new"]):
        assert sentence in told(argv, 2)


def test_a_native_checkpoint_without_a_number_is_of_the_first_version(run: Path):
    config = yaml.safe_load(Path("tiny/config.yaml").read_text())
    assert config.pop("schema") == CHECKPOINT_SCHEMA
    Path("tiny/config.yaml").write_text(yaml.safe_dump(config))
    assert locate("tiny").peek(LoadOptions()).name == "tiny"


def test_a_native_checkpoint_with_a_key_of_later_is_refused_by_the_key(run: Path):
    config = yaml.safe_load(Path("tiny/config.yaml").read_text())
    config["model"]["telepathy"] = 3
    Path("tiny/config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(CheckpointError, match=r"config\.yaml, model\.telepathy: Extra inputs are not permitted"):
        locate("tiny").peek(LoadOptions())


def test_released_checkpoints_and_kept_tables_are_of_this_version():
    configs = sorted((ROOT / "lpe_eval" / "released").glob("*/config.yaml"))
    assert configs
    for path in configs:
        assert yaml.safe_load(path.read_text())["schema"] == CHECKPOINT_SCHEMA, path
    kept = [path for path in (ROOT / "results").glob("*/rows.csv") if path.parent.name != "runs"]
    for path in kept:
        assert len(read_csv(path, table.ROWS))


TASK = {"name": "mine", "version": 7, "title": "t", "corpus": {"name": "local", "path": "a.txt"},
        "protocols": [{"name": "nonoverlap"}], "lengths": [16], "max_tokens": 99}  # fmt: skip


def test_rows_carry_the_version_of_the_task_that_they_were_measured_with(run: Path):
    Path("mine.yaml").write_text(yaml.safe_dump(TASK))
    told(["ppl", "-m", "tiny", "--task", "mine.yaml", "-q", "--out", "task"], 0)
    assert set(read_run(Path("task")).rows.task_version) == {7}
    Path("mine.yaml").write_text(yaml.safe_dump({**TASK, "version": 8}))
    assert "task holds another run" in told(["ppl", "-m", "tiny", "--task", "mine.yaml", "-q", "--out", "task"], 1)
    told(["ppl", "-m", "tiny", "--task", "mine.yaml", "-q", "--out", "task", "--overwrite"], 0)
    assert set(read_run(Path("task")).rows.task_version) == {8}


def test_a_task_of_a_later_program_is_refused_by_its_key(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**TASK, "telepathy": True}))
    with pytest.raises(UnknownName, match=r"no key of .*mine\.yaml named 'telepathy'"):
        read_task(str(path))
    path.write_text(yaml.safe_dump({**TASK, "version": 0}))
    with pytest.raises(SpecError, match=r"mine\.yaml, version: Input should be greater than or equal to 1"):
        read_task(str(path))


OLD_SPECS = {
    PerplexitySpec: """
kind: ppl
models: [alibi]
task: python-stdlib
task_version: 1
corpus: {name: python_stdlib, path: null, split: test, text_column: text, revision: null, subset: null,
  streaming: false, token_dtype: null, document_end: null, options: {}}
protocols: [{name: nonoverlap, stride: null, last_k: null}, {name: sliding, stride: null, last_k: null}]
lengths: [512, 8192]
max_tokens: 262144
bos: auto
pack: false
tail: score
seed: 0
batch_size: auto
device: cpu
dtype: float32
attention: auto
""",
    TrainSpec: """
kind: train
name: alibi
model:
  encoding: {name: alibi}
  vocab_size: 258
  width: 128
  layers: 4
  heads: 4
  mlp_width: 512
  train_length: 512
  causal: true
  norm: pre
  activation: gelu
  tied_embeddings: true
corpus: {name: python_stdlib}
tokenizer: bytes
steps: 1000
batch_tokens: 8192
learning_rate: 0.002
final_rate: 0.1
warmup_steps: 100
weight_decay: 0.1
clip_norm: 1.0
seed: 1
validate_every: 100
validation_tokens: 65536
weights_dtype: bfloat16
attention: auto
""",
    SpeedSpec: """
kind: speed
encodings: [{name: alibi}]
lengths: [512]
modes: [forward]
width: 128
layers: 4
heads: 4
batch_tokens: 2048
rounds: 5
device: cpu
dtype: float32
attention: auto
""",
}
"""`spec.yaml` as version 0.1.0 wrote it; a later field must have a default that means the same."""


@pytest.mark.parametrize("kind", OLD_SPECS, ids=lambda kind: kind.__name__)
def test_a_spec_of_the_first_version_can_still_be_run(kind: type, tmp_path: Path):
    path = tmp_path / "spec.yaml"
    path.write_text(OLD_SPECS[kind])
    spec = parse_spec(load_yaml(path), kind, str(path))
    kept = spec.model_dump(mode="json", by_alias=True)
    old = yaml.safe_load(OLD_SPECS[kind])
    assert {key: kept[key] for key in old if key not in ("corpus", "model")} == {
        key: value for key, value in old.items() if key not in ("corpus", "model")
    }
    path.write_text(OLD_SPECS[kind] + "telepathy: 3\n")
    assert "named 'telepathy'" in told(["run", str(path)], 2)
