"""Runs of `ppl` on models that people bring: what one of them raises costs its own cells, and nothing else.

A row is a case: its number in the collection, the factory, what it did before, what it must do now.
"""

import csv
import json
import math
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from typer.testing import CliRunner

from lpe_eval.cli import app
from tests.support.own_models import ALPHABET, Bigram, reference

pytestmark = pytest.mark.slow

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu " * 4
DOCUMENTS = [WORDS[start : start + 150] for start in range(8)]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "t.jsonl"
    # Eight documents, each two windows of 64 tokens and a shorter one.
    return written(path, DOCUMENTS)


def written(path: Path, documents: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents), encoding="utf-8")
    return path


class Run(NamedTuple):
    code: int
    said: str
    rows: dict[tuple[str, int], dict[str, str]]
    folder: Path


def run(text: Path, out: Path, *models: str, lengths: str = "64,128", more: tuple[object, ...] = ()) -> Run:
    named = [part for model in models for part in ("-m", model)]
    fixed = ("--data", text, "--lengths", lengths, "--protocol", "nonoverlap", "--max-tokens", 1200, "--out", out)
    flags = [*named, *fixed, *more]
    result = CliRunner().invoke(app, ["ppl", *map(str, flags)], env={"COLUMNS": "300"})
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    rows = {}
    if (out / "rows.csv").exists():
        with (out / "rows.csv").open(newline="") as file:
            rows = {(row["model"], int(row["length"])): row for row in csv.DictReader(file)}
    return Run(result.exit_code, " ".join(result.output.split()), rows, out)


def statuses(found: Run, model: str) -> list[str]:
    return [row["status"] for (name, _), row in found.rows.items() if name == model]


class Case(NamedTuple):
    number: str
    factory: str
    before: str
    status: tuple[str, str]
    note: str


FAILING = [
    Case("12", "raises?what=runtime", "the other model was lost", ("ok", "failed"), "RuntimeError: the kernel needs"),
    Case("12", "raises?what=empty", "the other model was lost", ("ok", "failed"), "fails on 128 tokens: AssertionErr"),
    Case("12", "raises?what=own", "the other model was lost", ("ok", "failed"), "Own: two"),
    Case("12", "raises?what=exit", "the other model was lost", ("ok", "failed"), "SystemExit"),
    Case("12", "raises?what=key", "the other model was lost", ("ok", "failed"), "KeyError: 'position'"),
    Case("12", "raises?what=length", "n/a, as now", ("ok", "n/a"), "no more than 100 tokens"),
    Case("12", "raises?what=own&beyond=0", "nothing was measured", ("failed", "failed"), "fails on a short text: Own"),
    Case("12", "raises_at_once?what=exit", "nothing was measured", ("failed", "failed"), "fails: SystemExit: 0"),
    Case("12", "raising_head", "the run ended as if all were well", ("failed", "failed"), "fails in head(states)"),
    Case("12", "no_letters", "nothing was measured", ("failed", "failed"), "cannot encode the text: Own: no letters"),
    Case("16", "grouped", "two good values", ("failed", "failed"), "sees the future: of a text of 128 tokens"),
    Case("15", "per_tensor", "a leak without a reason", ("failed", "failed"), "quantised over the whole tensor"),
]


@pytest.fixture(scope="module")
def failing(text: Path, tmp_path_factory) -> Run:
    """All of them in one run, and one that is well."""
    models = [f"m{number}={reference(case.factory)}" for number, case in enumerate(FAILING)]
    return run(text, tmp_path_factory.mktemp("runs") / "out", *models, f"base={reference('bigram')}", more=("-q",))


@pytest.mark.parametrize(("number", "case"), [*enumerate(FAILING)], ids=lambda each: str(getattr(each, "factory", "")))
def test_what_a_model_raises_costs_its_own_cells(number: int, case: Case, failing: Run):
    assert statuses(failing, "base") == ["ok", "ok"], case.before
    assert failing.code == 4, failing.said
    own = f"m{number}"
    assert tuple(statuses(failing, own)) == case.status
    notes = [row["note"] for row in failing.rows.values() if row["model"] == own and row["status"] != "ok"]
    assert notes and all(case.note in note for note in notes), notes


def test_a_model_that_fails_alone_is_refused_at_once(text: Path, tmp_path: Path):
    found = run(text, tmp_path / "out", reference("raises_at_once?what=own"))
    assert found.code == 2 and "fails: Own: two" in found.said and not found.rows


@pytest.mark.parametrize("words", ["CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED"])
def test_a_batch_halves_where_cublas_lacks_memory(words: str, text: Path, tmp_path: Path):
    """Case 13: before, "failed"."""
    model = reference(f"small_memory?words={words}")
    found = run(text, tmp_path / "out", f"own={model}", f"base={reference('bigram')}", more=("-q",))
    assert found.code == 0, found.said
    own, base = (found.rows[name, 64] for name in ("own", "base"))
    assert float(own["value"]) == pytest.approx(float(base["value"]), rel=1e-6)
    assert [row["batch_tokens"] for row in costs(found)] == ["64", "128", "4096", "4096"]


def costs(found: Run) -> list[dict[str, str]]:
    with (found.folder / "cost.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_leak_can_be_allowed_and_is_recorded(text: Path, tmp_path: Path):
    """Case 15: before, there was no way out."""
    refused = run(text, tmp_path / "no", reference("per_tensor"), more=("-q",))
    assert refused.code == 4 and "--allow-leak" in next(iter(refused.rows.values()))["note"]
    found = run(text, tmp_path / "out", f"own={reference('per_tensor')}", more=("-q", "--allow-leak"))
    assert found.code == 0 and statuses(found, "own") == ["ok", "ok"]
    assert all("sees the future" in row["note"] for row in found.rows.values())
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text(encoding="utf-8"))
    assert "sees the future" in provenance["models"]["own"]["opened"]["leak"]
    assert "allow_leak: true" in (tmp_path / "out" / "spec.yaml").read_text(encoding="utf-8")


def test_a_shorter_window_that_fails_names_the_way_out(text: Path, tmp_path: Path):
    """Case 17: before, "fails on a short text: 5 tokens ..." and nothing was measured."""
    model = f"own={reference('chunked?chunk=64')}"
    dropped = run(text, tmp_path / "dropped", model, more=("-q", "--tail", "drop"))
    assert dropped.code == 0 and statuses(dropped, "own") == ["ok", "ok"]
    scored = run(text, tmp_path / "scored", model, more=("-q",))
    assert scored.code == 4
    assert all("--tail drop" in row["note"] for row in scored.rows.values())


@pytest.mark.parametrize("factory", ["characters", "pair"])
def test_an_encode_function_is_all_the_tokenizer_it_takes(factory: str, text: Path, tmp_path: Path):
    """Before: "names no tokenizer". The oracle is a loop over the characters."""
    found = run(text, tmp_path / "out", f"own={reference(factory)}", more=("-q", "--tail", "drop"))
    assert found.code == 0, found.said
    row, table = found.rows["own", 64], Bigram(len(ALPHABET)).table.detach()
    ids = torch.tensor([[ALPHABET.index(each) for each in document] for document in DOCUMENTS])
    nats = torch.nn.functional.cross_entropy(table[ids[:, :128]].mT.double(), ids[:, 1:129]).item()
    assert int(row["n_tokens"]) == 8 * 128
    values = {"perplexity": math.exp(nats), "nll_nats": nats, "bits_per_byte": nats / math.log(2)}
    assert float(row["value"]) == pytest.approx(values[row["metric"]], rel=1e-5)


def test_a_batch_that_is_slower_than_its_windows_shrinks(tmp_path: Path):
    """Architectures 11: before, all batches were as large as their budget."""
    models = (f"own={reference('slow')}", f"base={reference('bigram')}")
    many = written(tmp_path / "many.jsonl", [WORDS[start : start + 150] for start in range(80)])
    more = ("-q", "--tail", "drop", "--max-tokens", 12000)
    found = run(many, tmp_path / "out", *models, more=more)
    own, base = (found.rows[name, 64] for name in ("own", "base"))
    assert float(own["value"]) == pytest.approx(float(base["value"]), rel=1e-6)
    batches = [int(row["batch_tokens"]) for row in costs(found)]
    assert batches[0] <= 2048 and batches[2] == 4096


def test_progress_tells_the_cell_and_tokens(text: Path, tmp_path: Path):
    """F13: before, "work/s"."""
    found = run(text, tmp_path / "out", f"own={reference('bigram')}")
    assert "own at 64, cell 1 of 2: " in found.said and "tokens/s" in found.said and "work" not in found.said


def test_a_dry_run_tries_only_what_is_asked(text: Path, tmp_path: Path):
    """F6: before, 256 and 1024 tokens were tried whatever was asked, so this model was n/a at 64."""
    model = f"own={reference('raises?what=length')}"
    found = run(text, tmp_path / "out", model, more=("--dry-run",))
    assert found.code == 0
    assert "own at 64:" in found.said and "own at 128:" in found.said
    assert "n/a: no more than 100 tokens" in found.said and "minutes in all" in found.said
    assert found.said.count("n/a") == 2, "once as it goes, and once in the table"


NANO_GPT = {"model": {"_orig_mod.w": torch.zeros(2)}, "model_args": {"n_layer": 1}, "iter_num": 3, "config": {}}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ckpt.pt", "nanoGPT"),
        ("model.bin", "llama2.c"),
        ("model.safetensors", "load_file"),
        ("weights.pth", "torch.load"),
    ],
)
def test_bare_weights_are_told_the_three_lines_they_need(name: str, told: str, text: Path, tmp_path: Path):
    """F15: before, "not a checkpoint of any known format"."""
    file = tmp_path / "held" / name
    file.parent.mkdir()
    if name == "model.bin":
        file.write_bytes(torch.tensor([64, 172, 2, 4, 2, 512, 256], dtype=torch.int32).numpy().tobytes() + bytes(64))
    elif name == "model.safetensors":
        file.write_bytes(b"\0" * 16)
    else:
        torch.save(NANO_GPT if name == "ckpt.pt" else {"w": torch.zeros(2)}, file)
    for place in (file, file.parent):
        found = run(text, tmp_path / "out", str(place))
        assert found.code == 2
        assert told in found.said and "py:mine.py:make" in found.said and "def make():" in found.said
