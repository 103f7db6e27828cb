"""`lpe-eval show`: a run told back, and BibTeX of what was used and nothing else."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from lpe_eval import table
from lpe_eval.cli import app
from lpe_eval.model.checkpoints.native import Native
from lpe_eval.model.transformer import Transformer
from lpe_eval.report.frames import csv_bytes
from lpe_eval.spec.model_spec import CheckpointSpec
from tests.support.bibtex import parsed

SHAPE = {"width": 16, "layers": 1, "heads": 2, "mlp_width": 32, "train_length": 32}
SIZES = ("--width", "16", "--layers", "1", "--heads", "2")
TRAIN = ("--steps", "4", "--train-length", "32", "--batch-tokens", "64", *SIZES)


def lpe_eval(*arguments: object, code: int = 0) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(each) for each in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    assert code == 0 or result.stdout == ""
    return result.stdout if code == 0 else result.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of each kind, and the text and model they were made of."""
    root = tmp_path_factory.mktemp("runs")
    (root / "text").mkdir()
    for split in ("train", "valid"):
        (root / "text" / f"{split}.txt").write_text(" ".join(f"word{(each * each) % 91}" for each in range(200)))
    for encoding in ("dape(kerple_log)", "learned"):
        spec = CheckpointSpec.model_validate({"schema": 1, "name": encoding, "model": {"encoding": encoding, **SHAPE}})
        model = Transformer(spec.model)
        model.initialise(torch.Generator().manual_seed(0))
        Native.save(model, spec, root / encoding[:4], torch.float32)
    text = ("--data", root / "text" / "train.txt", "--lengths", "32,64", "--max-tokens", 400)
    models = ("-m", f"first={root / 'dape'}", "-m", root / "lear")
    lpe_eval("ppl", *models, *text, "--protocol", "nonoverlap,last", "--last-k", 8, "--out", root / "ppl", "-q")
    lpe_eval("train", "--encoding", "alibi", "--corpus", root / "text", *TRAIN, "--out", root / "train", "-q")
    speed = ("--encoding", "rope,fire", "--lengths", 16, "--mode", "forward", *SIZES)
    lpe_eval("speed", *speed, "--out", root / "speed", "-q")
    return root


def test_a_perplexity_run_is_told_with_its_models_and_its_values(runs: Path):
    told = lpe_eval("show", runs / "ppl")
    known = json.loads((runs / "ppl" / "provenance.json").read_text())
    for part in (
        *("perplexity", known["run"], "custom", "nonoverlap, last (last_k 8)", "32, 64", "400 tokens", "1 document,"),
        *("18 ok", "6 n/a", "tokens a second", "MiB", "float32", "documents and positions 0", "not asked for"),
        *("dape(kerple_log)", "learned", "first", known["models"]["first"]["digest"][:12], *known["attention"]),
        (known["environment"]["source"]["commit"] or "no commit")[:12],
    ):
        assert part in told, part
    assert "n/a: learned at" in told


def test_a_training_and_a_speed_measurement_are_told_too(runs: Path):
    training = lpe_eval("show", runs / "train")
    known = json.loads((runs / "train" / "provenance.json").read_text())
    for part in ("a training", "alibi: 1 layers, width 16", "4 of 64 tokens", known["checkpoint_digest"], "finished"):
        assert part in training, part
    assert known["corpus"]["train"] in training and "valid_nll_nats" in training
    speed = lpe_eval("show", runs / "speed")
    for part in ("speed", "forward", "rounds", "sdpa", "times plain", "3 ok"):
        assert part in speed, part


def test_the_spec_is_printed_as_it_is(runs: Path):
    for kind in ("ppl", "train", "speed"):
        assert lpe_eval("show", runs / kind, "--spec") == (runs / kind / "spec.yaml").read_text()
    assert "choose one" in lpe_eval("show", runs / "ppl", "--spec", "--cite", code=2)


def test_a_folder_that_is_no_run_is_answered_with_one_sentence(tmp_path: Path):
    assert "there is no folder" in lpe_eval("show", tmp_path / "absent", code=2)
    (tmp_path / "file").write_text("")
    assert "there is no folder" in lpe_eval("show", tmp_path / "file", code=2)
    assert "holds no run" in lpe_eval("show", tmp_path, code=2)
    (tmp_path / "spec.yaml").write_text("kind: breakfast\n")
    assert "holds no run" in lpe_eval("show", tmp_path, code=2)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("provenance.json", "{", "provenance.json is not JSON"),
        ("provenance.json", "[]", "provenance.json holds no mapping"),
        ("provenance.json", '{"models": 3}', "this program did not write"),
        ("provenance.json", '{"starts": [{"seconds": "soon"}]}', "this program did not write"),
        ("spec.yaml", "kind: [", "spec.yaml is not YAML"),
        ("spec.yaml", "kind: ppl\nprotocols: 3\n", "this program did not write"),
        ("run.json", '{"run": "x", "schema": 99}', "newer lpe-eval"),
        ("rows.csv", "a,b\n", "does not have the columns"),
    ],
)
def test_a_damaged_run_is_answered_with_one_sentence(runs, tmp_path, name, content, sentence):
    for each in ("spec.yaml", "provenance.json", "run.json", "rows.csv"):
        (tmp_path / each).write_bytes((runs / "ppl" / each).read_bytes())
    (tmp_path / name).write_text(content)
    told = lpe_eval("show", tmp_path, code=1)
    assert sentence in " ".join(told.split()) and told.count("\n") == 1


def test_a_run_of_an_earlier_version_and_one_that_has_hardly_begun_are_told(runs: Path, tmp_path: Path):
    (tmp_path / "spec.yaml").write_bytes((runs / "ppl" / "spec.yaml").read_bytes())
    result = CliRunner().invoke(app, ["show", str(tmp_path)])
    assert result.exit_code == 0 and "nothing has been finished" in result.stderr
    (tmp_path / "rows.csv").write_bytes((runs / "ppl" / "rows.csv").read_bytes())
    old = {"environment": {"lpe_eval": "0.1.0", "source": None, "device": "a lathe"}, "seconds": 75.0, "models": {}}
    (tmp_path / "provenance.json").write_text(json.dumps(old))
    told = lpe_eval("show", tmp_path)
    assert "0.1.0, no commit" in told and "a lathe" in told and "1:15" in told
    keys = parsed(lpe_eval("show", tmp_path, "--cite")).keys()
    assert {"zheng2024dape", "chi2022kerple", "gehring2017convs2s"} < keys


def test_only_what_was_used_is_cited_and_each_once(runs: Path):
    always = {"lpe_eval"}
    perplexity = parsed(lpe_eval("show", runs / "ppl", "--cite"))
    # dape and the protocol `last` come from one paper; nonoverlap from alibi's.
    assert perplexity.keys() == always | {"zheng2024dape", "chi2022kerple", "gehring2017convs2s", "press2021alibi"}
    assert parsed(lpe_eval("show", runs / "train", "--cite")).keys() == always | {"press2021alibi"}
    assert parsed(lpe_eval("show", runs / "speed", "--cite")).keys() == always | {"su2021roformer", "li2023fire"}
    known = json.loads((runs / "ppl" / "provenance.json").read_text())
    own = perplexity["lpe_eval"]
    assert known["environment"]["lpe_eval"] in own["note"] and own["year"] == known["starts"][0]["began"][:4]


def test_a_run_on_algorithmic_problems_is_told_and_cited_from_its_tables(tmp_path: Path):
    (tmp_path / "spec.yaml").write_text("kind: che\nencodings: [{name: alibi}]\n")
    values = {"task": "parity_check", "task_version": 1, "level": "regular", "encoding": "alibi", "status": "ok"}
    values |= {"metric": "accuracy", "value": 0.75, "in_range": 0}
    row = [values.get(column.name, 1 if column.kind != "string" else "x") for column in table.CHE]
    (tmp_path / "che.csv").write_bytes(csv_bytes(table.CHE, [row]))
    told = lpe_eval("show", tmp_path)
    for part in ("algorithmic problems", "parity_check v1", "alibi", "1 ok", "accuracy", "75.0"):
        assert part in told, part
    keys = parsed(lpe_eval("show", tmp_path, "--cite")).keys()
    assert keys == {"lpe_eval", "press2021alibi", "deletang2022chomsky", "ruoss2023randomized"}


def test_the_spec_of_a_run_can_be_run_again(runs: Path, tmp_path: Path):
    (tmp_path / "again.yaml").write_text(lpe_eval("show", runs / "ppl", "--spec"))
    lpe_eval("run", tmp_path / "again.yaml", "--out", tmp_path / "again", "-q")
    assert (tmp_path / "again" / "rows.csv").read_bytes() == (runs / "ppl" / "rows.csv").read_bytes()
    assert yaml.safe_load((tmp_path / "again.yaml").read_text())["kind"] == "ppl"
