"""What somebody meets in the first hour. What each case did before, and what it does.

Numbers are those of the faults F; those of other files of this folder are not repeated here.
"""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.report.folders.ppl import read_run
from tests.support.native_checkpoints import checkpoint

pytestmark = pytest.mark.slow

TEXT = "hello world, hello moon. " * 60


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    for step in (1, 2):
        checkpoint(tmp_path / "steps" / f"step{step}", "learned", seed=step, train_length=16)
    return tmp_path


def said(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


PPL = ("ppl", "--data", "text.txt", "--max-tokens", "400", "--protocol", "nonoverlap", "--out", "out")


def test_f15_a_pattern_in_quotes_is_every_checkpoint_that_it_matches(there: Path):
    """Before: taken for a model of the Hub."""
    said(*PPL, "-m", "steps/*", "--lengths", "16", "-q")
    assert list(dict.fromkeys(read_run(there / "out").rows.model)) == ["step1", "step2"]
    assert "-m steps/none*: no file or folder here matches" in said(*PPL, "-m", "steps/none*", code=2)


def test_f15_a_run_without_a_value_names_no_figure(there: Path):
    """Before: a figure of nothing was drawn and named."""
    assert "figure" not in said(*PPL, "-m", "steps/step1", "--lengths", "64")
    assert not (there / "out" / "figures").exists()


def test_f15_one_document_is_one(there: Path):
    """Before: "1 documents"."""
    assert "in 1 document for each value" in said(*PPL, "-m", "steps/step1", "--lengths", "16")


def test_f15_quiet_is_quiet(there: Path):
    """Before: notes were printed all the same."""
    assert "note" not in said(*PPL, "-m", "steps/step1", "--lengths", "16", "-q")


def test_list_alone_says_what_can_be_listed(there: Path):
    """Before: an error, and no list of problems, protocols, tokenizers, baselines or fields."""
    shown = said("list")
    for what in ("problems", "protocols", "tokenizers", "baselines", "columns", "fields", "encoders"):
        assert what in shown
        assert said("list", what)
    assert "context-sensitive" in said("list", "problems") and "anchored" in said("list", "protocols")
    assert "released-che" in said("list", "baselines") and "char:FILE" in said("list", "tokenizers")


def test_list_checkpoints_says_what_tells_them_apart(there: Path):
    """Before: the paths of their folders."""
    shown = said("list", "checkpoints")
    assert "dape-kerple-log dape(kerple_log) 512 bytes" in shown and "/" not in shown


def test_list_with_a_name_shows_the_options_of_an_encoding(there: Path):
    """Before: no command told them."""
    shown = said("list", "encodings", "p-rope")
    assert "p number, at least 0, at most 1 0.25" in shown and "p_rope[p=0.25]" in shown
    assert "arXiv 2410.06205" in shown
    assert "did you mean alibi" in said("list", "encodings", "alibbi", code=2)
    assert "batch_tokens whole number, at least 1 8192" in said("list", "fields", "train")
    assert "did you mean" in said("list", "fields", "trian", code=2)
    assert "emozilla/pg19" in said("list", "tasks", "pg19")


def test_every_field_of_every_spec_says_what_it_means():
    """Before: no document named the fields of a spec."""
    from lpe_eval.registry import KINDS
    from lpe_eval.spec.fields import fields_of, specs_inside
    from lpe_eval.spec.kinds_of_spec import FILES, spec_of

    specs = {each for name in [*KINDS.names(), *FILES] for each in (spec_of(name), *specs_inside(spec_of(name)))}
    assert len(specs) > 10
    assert not [(spec.__name__, field.name) for spec in specs for field in fields_of(spec) if not field.meaning]


TRAIN = (
    *("train", "--encoding", "alibi", "--steps", "2", "--train-length", "16", "--batch-tokens", "32"),
    *("--width", "16", "--layers", "1", "--heads", "2", "--device", "cpu", "-q"),
)


@pytest.fixture
def books(there: Path) -> Path:
    for split in ("train", "valid", "test"):
        Path("books", split).mkdir(parents=True)
        Path("books", split, "a.txt").write_text(TEXT)
    return there


def test_train_says_data_as_ppl_does_and_takes_the_warmup(books: Path):
    """Before: `--corpus` alone, and the warm-up was fixed."""
    said(*TRAIN, "-d", "books", "--warmup-steps", "1", "--out", "mine")
    spec = yaml.safe_load(Path("mine/spec.yaml").read_text())
    assert spec["warmup_steps"] == 1 and spec["corpus"]["path"] == "books"
    said(*TRAIN, "--corpus", "books", "--warmup-steps", "1", "--out", "mine")


def test_train_with_several_seeds_is_a_study_whose_models_a_pattern_names(books: Path):
    """Before: a command for each seed. The pattern took the logs and specs beside the checkpoints too."""
    said(*TRAIN, "--data", "books", "--seeds", "1,2", "--jobs", "2", "--out", "seeds")
    found = {yaml.safe_load(path.read_text())["seed"] for path in Path("seeds").glob("alibi*/spec.yaml")}
    assert found == {1, 2}
    said(*PPL, "-m", "seeds/*", "--lengths", "16", "-q")
    assert list(dict.fromkeys(read_run(books / "out").rows.model)) == ["alibi", "alibi-seed2"]
    assert "give one of the two" in said(*TRAIN, "--seed", "1", "--seeds", "1,2", code=2)
    assert "are no whole numbers" in said(*TRAIN, "--seeds", "one", code=2)


def test_the_last_line_says_what_to_type_next(there: Path):
    """Before: where the rows are, and no command."""
    shown = said(*PPL, "-m", "steps/step1", "--lengths", "16")
    assert shown.endswith("next: lpe-eval show out, or keep it as a baseline: lpe-eval compare out --bless NAME")


def test_all_models_by_one_word_wherever_models_are_taken(there: Path):
    """Before: `ppl` alone knew the word."""
    shown = said("inspect", "steps/*", "--tokenizer", "bytes")
    assert shown.count("step1") >= 1 and shown.count("step2") >= 1
    said("che", "-m", "all", "--tasks", "parity_check", "--lengths", "20", "--samples", "2", "-q", "--out", "che")
    assert len(yaml.safe_load(Path("che/spec.yaml").read_text())["models"]) == 5
    fields = {"kind": "ppl", "models": ["steps/*"], "corpus": "text.txt", "protocols": [{"name": "nonoverlap"}],
              "lengths": [16], "max_tokens": 100}  # fmt: skip
    Path("spec.yaml").write_text(yaml.safe_dump(fields))
    said("run", "spec.yaml", "--out", "out", "-q")
    assert list(dict.fromkeys(read_run(there / "out").rows.model)) == ["step1", "step2"]
