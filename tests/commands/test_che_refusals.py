"""`lpe-eval che` on what cannot be: a sentence, and the other cells still run."""

from pathlib import Path

import pytest

from lpe_eval.spec.fingerprint import spec_text
from tests.support.che_command import command, lines
from tests.support.che_runs import tiny, trained


@pytest.fixture
def protocol_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(spec_text(tiny(name="tiny")))
    return path


def test_what_cannot_be_is_one_sentence_and_the_other_cells_still_run(tmp_path, protocol_file):
    flags = ("--train", "--protocol", protocol_file, "--tasks", "even_pairs", "-q")
    result = command(*flags, "--encoding", "learned,rope", "--out", tmp_path / "a")
    assert result.exit_code == 2
    assert "learned has positions for 9 tokens" in " ".join(result.output.split())
    rows = lines(tmp_path / "a" / "che.csv")
    assert {row["status"] for row in rows if row["encoding"] == "rope"} == {"ok"}
    by_length = {row["length"]: row["status"] for row in rows if row["encoding"] == "learned"}
    assert by_length == {"8": "ok", "9": "n/a", "12": "n/a", "16": "n/a"}


def test_an_encoding_without_a_bidirectional_form_has_cells_that_say_so(tmp_path):
    key = {"name": "alibi", "form": "key"}
    outcome = trained(tmp_path, [key, "rope"])
    assert outcome.failed == ""
    sentence = outcome.misfit
    assert "causal models only" in sentence
    rows = lines(tmp_path / "che.csv")
    assert {row["status"] for row in rows if row["encoding"] == "alibi"} == {"n/a"}
    assert {row["status"] for row in rows if row["encoding"] == "rope"} == {"ok"}


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--train", "--encoding", "rope", "--tasks", "even_pears"), "did you mean even_pairs"),
        (("--train", "--encoding", "ropee"), "did you mean rope"),
        (("--train", "--encoding", "rope", "--protocol", "quik"), "did you mean quick"),
        (("--train",), "go together"),
        (("--encoding", "rope"), "go together"),
        (("--protocol", "quick"), "belongs to --train"),
        (("--train", "--encoding", "rope", "-m", "x"), "one of the two"),
        (("-m", "/nowhere"), "holds no encoders"),
        (("-m", "rpoe"), "no released encoder (and no folder) named 'rpoe'; did you mean rope?"),
        (("--train", "--encoding", "rope", "--lengths", "abc"), "is no length"),
        (("--train", "--encoding", "rope", "--device", "cuda:77"), "no such device"),
    ],
)
def test_a_slip_is_answered_before_anything_is_made(flags, sentence, tmp_path):
    result = command(*flags, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())
    assert not (tmp_path / "run").exists()


def test_a_task_that_no_checkpoint_has_is_refused(tmp_path):
    trained(tmp_path / "run")
    result = command("-m", tmp_path / "run", "--tasks", "bucket_sort", "--out", tmp_path / "scores")
    assert result.exit_code == 2
    assert "known: even_pairs" in " ".join(result.output.split())
