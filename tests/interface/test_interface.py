"""The Python interface: the values of the commands, one sentence for what goes wrong, and nothing printed."""

import csv
import gc
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import lpe_eval
from lpe_eval.cli import app
from lpe_eval.errors import DataError, LpeEvalError, OutputError, RegressionFound, SpecError, UnknownName
from tests.support.own_models import SYMBOLS, Bigram, Rope, pair, reference

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu " * 12


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a text, and a place of its own for what is temporary."""
    monkeypatch.chdir(tmp_path)
    Path("text").mkdir()
    for number in range(3):
        Path("text", f"{number}.txt").write_text(WORDS[number:])
    Path("temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path


def typed(*arguments: str) -> None:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output


def without_run(folder: str, name: str = "rows.csv") -> list[list[str]]:
    """The cells of a table but the id, which tells a file of a function from an object."""
    with Path(folder, name).open(newline="") as file:
        return [line[1:] for line in csv.reader(file)]


def test_the_package_alone_imports_nothing_heavy():
    code = (
        "import sys, lpe_eval; assert not {'torch', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules); "
        "assert {'ppl', 'read', 'open'} <= set(dir(lpe_eval))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there_and_no_other():
    from lpe_eval import interface

    assert {*interface.__all__, "__version__"} == set(lpe_eval.__all__)
    assert all(getattr(lpe_eval, name) is not None for name in lpe_eval.__all__)
    with pytest.raises(AttributeError, match="no attribute 'perplexity'"):
        _ = lpe_eval.perplexity  # pyright: ignore[reportAttributeAccessIssue]
    assert (Path(lpe_eval.__file__).parent / "py.typed").is_file()


def test_a_released_checkpoint_gives_the_bytes_of_the_command(here: Path):
    flags = ("--lengths", "64,128", "--data", "text", "--max-tokens", "1500", "--protocol", "sliding", "--stride", "32")
    typed("ppl", "-m", "alibi", *flags, "--seed", "3", "--out", "typed", "-q")
    asked = {"data": "text", "max_tokens": 1500, "protocol": "sliding", "stride": 32, "seed": 3}
    run = lpe_eval.ppl("alibi", [64, 128], **asked, out="called")
    for name in ("rows.csv", "by_document.parquet", "by_position.parquet", "spec.yaml", "figures/perplexity.png"):
        assert Path("typed", name).read_bytes() == Path("called", name).read_bytes(), name
    assert run.folder == Path("called") and run.kind == "ppl" and run.spec["seed"] == 3
    again = lpe_eval.ppl(["alibi"], "64,128", **asked, out="called")
    assert any("already holds 2 of 2 cells" in note for note in again.notes)


@pytest.mark.parametrize(("factory", "made"), [("rope?kind=buffer", lambda: Rope("buffer")), ("pair", pair)])
def test_an_object_gives_the_values_of_the_same_object_behind_a_file(factory: str, made, here: Path):
    typed("ppl", "-m", f"own={reference(factory)}", "--lengths", "64,128", "--data", "text", "--max-tokens", "1500",
          "--out", "typed", "-q")  # fmt: skip
    run = lpe_eval.ppl({"own": made()}, [64, 128], data=Path("text"), max_tokens=1500, out="called")
    assert without_run("typed") == without_run("called")
    assert set(run.rows.status) == {"ok"}
    assert not list(Path("temporary").iterdir())


def test_recall_and_problems_give_the_values_of_their_commands(here: Path):
    flags = ("--lengths", "64", "--tests", "repeat", "--repeat-tokens", "256", "--data", "text")
    typed("recall", "-m", f"own={reference('rope?kind=buffer')}", *flags, "--out", "typed", "-q")
    asked = {"tests": ["repeat"], "repeat_tokens": 256, "data": "text"}
    run = lpe_eval.recall({"own": Rope("buffer")}, 64, **asked, out="called")
    assert without_run("typed", "recall.csv") == without_run("called", "recall.csv") and run.kind == "recall"
    typed("che", "-m", "rope", "--tasks", "parity_check", "--lengths", "20,30", "--samples", "16", "--out", "typed-che",
          "-q")  # fmt: skip
    run = lpe_eval.che("rope", [20, 30], tasks="parity_check", samples=16, out="called-che")
    assert Path("typed-che/che.csv").read_bytes() == Path("called-che/che.csv").read_bytes() and len(run.rows)


def test_nothing_is_printed_and_nothing_is_left(here: Path, capfd: pytest.CaptureFixture[str]):
    run = lpe_eval.ppl({"own": Bigram(), "other": Rope("buffer")}, [32, 64], data="text", max_tokens=600)
    assert capfd.readouterr() == ("", "")
    (folder,) = Path("temporary").iterdir()
    assert run.folder.resolve() == folder.resolve() and not (folder / "figures").exists()
    assert list(run.rows.length.unique()) == [32, 64] and "12 rows" not in repr(run) and "24 rows" in repr(run)
    del run
    gc.collect()
    assert not list(Path("temporary").iterdir())


def test_what_was_noted_is_kept_and_said_where_it_is_asked_for(here: Path, capfd: pytest.CaptureFixture[str]):
    run = lpe_eval.ppl({"own": Bigram(), "none": "py:nothing.py:make"}, 32, data="text", max_tokens=600, quiet=False) \
        if Path("nothing.py").write_text("def make():\n    raise RuntimeError('no')\n") else None  # fmt: skip
    assert run is not None
    told = capfd.readouterr()
    assert not told.out and "none cannot be measured" in told.err
    assert any("RuntimeError: no" in note for note in run.notes) and "of the cells have no value" in run.notes[-1]
    assert set(run.rows[run.rows.model == "none"].status) == {"failed"}
    assert set(run.rows[run.rows.model == "own"].status) == {"ok"}


def test_a_run_is_read_drawn_and_compared(here: Path):
    first = lpe_eval.ppl({"own": Bigram()}, [32, 64], data="text", max_tokens=1500, out="first")
    worse = Bigram()
    worse.table.data *= 1.5
    second = lpe_eval.ppl({"own": worse}, [32, 64], data="text", max_tokens=1500)
    read = lpe_eval.read("first")
    assert read.rows.equals(first.rows) and read.spec == first.spec
    assert {"perplexity.png", "perplexity.svg"} <= set(read.plot().files)
    assert read.plot(second, models=["own"]).files["perplexity.png"][:4] == b"\x89PNG"
    saved = read.plot().save("figures")
    assert all(path.is_file() for path in saved) and "data:image/png;base64" in read.plot()._repr_html_()
    same, found = first.compare(read), second.compare(Path("first"), "./first")
    assert same.passed and same.exit_code == 0 and set(same.rows.verdict) == {"same"} and same.check() is None
    assert not found.passed and found.exit_code == 3 and set(found.rows.verdict) == {"worse"}
    typed_code = CliRunner().invoke(app, ["compare", str(second.folder), "--baseline", "./first"]).exit_code
    assert typed_code == found.exit_code
    with pytest.raises(RegressionFound, match="worse"):
        found.check()
    assert "worse" in found._repr_html_() and "worse" in repr(found)


HOSTILE = "<img src=x onerror=alert(1)>&\u202e\x1b[31m'\""


def test_names_are_text_in_a_notebook(here: Path):
    run = lpe_eval.ppl({"own": Bigram(), "<b>&'\"": Bigram()}, [32], data="text", max_tokens=600, out="hostile")
    page = run._repr_html_()
    assert "&lt;b&gt;&amp;&#x27;&quot;" in page and "<b>&" not in page
    rows = Path("hostile/rows.csv")
    quoted = '"' + HOSTILE.replace('"', '""') + '"'
    rows.write_text(rows.read_text(encoding="utf-8").replace(",own,", f",{quoted},"), encoding="utf-8")
    page = lpe_eval.read("hostile")._repr_html_()
    assert "<img" not in page and "&lt;img src=x" in page and "\u202e" not in page and "\x1b" not in page


@pytest.mark.parametrize(
    ("asked", "kind", "sentence"),
    [
        (lambda: lpe_eval.ppl([], 32, data="text"), SpecError, "no model is given"),
        (lambda: lpe_eval.ppl({"a=b": Bigram()}, 32, data="text"), SpecError, "cannot be called 'a=b'"),
        (lambda: lpe_eval.ppl([Bigram(), Bigram()], 32, data="text"), SpecError, "two models are called 'Bigram'"),
        (lambda: lpe_eval.ppl("alibbi", 32, data="text"), UnknownName, "did you mean alibi"),
        (lambda: lpe_eval.ppl("alibi", 32, data="txt"), LpeEvalError, "txt"),
        (lambda: lpe_eval.ppl("alibi", 32, data="text", sede=1), UnknownName, "sede"),  # pyright: ignore
        (lambda: lpe_eval.ppl("alibi", [], data="text"), SpecError, "lengths"),
        (lambda: lpe_eval.ppl("alibi", 32, data="text", dtype="int8"), SpecError, "dtype"),
        (lambda: lpe_eval.ppl("alibi", 32, data="text", device="tpu9"), SpecError, "no such device"),
        (lambda: lpe_eval.ppl(Bigram(100), 32, data="text", max_tokens=200), LpeEvalError, "names no tokenizer"),
        (lambda: lpe_eval.read("text"), SpecError, "holds no run"),
        (lambda: lpe_eval.read("nowhere"), SpecError, "there is no folder nowhere"),
        (lambda: lpe_eval.open("alibi", sede=1), SpecError, "takes no 'sede'"),  # pyright: ignore[reportCallIssue]
        (lambda: lpe_eval.open("alibi", dtype="int8"), SpecError, "not 'int8'"),
        (lambda: lpe_eval.open("alibi").losses("a"), DataError, "fewer than two tokens"),
        (lambda: lpe_eval.ppl("alibi", 32, data="text", out="text"), OutputError, "text"),
        (lambda: lpe_eval.che("nobody", 20), LpeEvalError, "nobody"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_leaves_nothing(asked, kind, sentence: str, here: Path):
    with pytest.raises(kind) as told:
        asked()
    assert sentence in str(told.value) and "\n" not in str(told.value)
    gc.collect()
    assert not list(Path("temporary").iterdir())


def test_the_spec_of_an_object_says_that_it_cannot_be_run_again(here: Path):
    lpe_eval.ppl({"own": Bigram()}, 32, data="text", max_tokens=600, out="first")
    result = CliRunner().invoke(app, ["run", "first/spec.yaml", "--out", "again"])
    assert result.exit_code == 2
    assert "was an object of a running program" in " ".join(result.output.split())


def test_an_opened_checkpoint_tells_the_loss_of_each_token(here: Path):
    Path("mine.py").write_text("from tests.support.own_models import bigram\n")
    model = lpe_eval.open("py:mine.py:bigram")
    ids = torch.tensor(list(b"a quick brown fox"))
    wanted = torch.nn.functional.cross_entropy(Bigram().table[ids[:-1]].detach().double(), ids[1:], reduction="none")
    for text in ("a quick brown fox", ids.tolist()):
        np.testing.assert_allclose(model.losses(text), wanted.numpy(), rtol=1e-5)
    assert model.facts.vocab_size == SYMBOLS and "parameters" in repr(model) and model.notes == ()
    run = lpe_eval.ppl("alibi", 64, data="text", protocol="nonoverlap", max_tokens=100, tail="drop")
    alibi = lpe_eval.open("alibi", dtype="float32")
    assert alibi.losses(WORDS[:200]).shape[0] > 20 and run.rows.value.notna().all()
