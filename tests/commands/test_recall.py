"""`lpe-eval recall` from the command line to its files, with models whose recall is known and with those that ship."""

import csv
import math
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.measure.recall.trial import ANSWERED
from lpe_eval.records import ItemKey
from lpe_eval.report.folders.items import item_columns
from lpe_eval.report.folders.provenance import read_provenance
from lpe_eval.report.folders.recall import EFFECTIVE, RECALL, RECALL_KEYS
from lpe_eval.report.frames import read_csv, read_parquet, records
from lpe_eval.report.kind import open_folder
from lpe_eval.report.kinds.recall import Recall
from tests.support.own_recallers import FILE

LN = math.log(258)
ORDER = len('\nMOTABE = "')
SMALL = ("--repeat-tokens", "512", "--prompts", "4", "--data", "text")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with some text, whose runs of different tests share it."""
    home = tmp_path_factory.mktemp("home")
    (home / "text").mkdir()
    for number in range(4):
        words = " ".join(f"word{(number * 7 + each * each) % 91}" for each in range(700))
        (home / "text" / f"{number}.txt").write_text(words)
    return home


def lpe_eval(home: Path, *arguments: object, code: int = 0) -> str:
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(home)
        result = CliRunner(env={"COLUMNS": "250"}).invoke(app, [str(each) for each in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def own(name: str, factory: str) -> tuple[str, str]:
    return "-m", f"{name}=py:{FILE}:{factory}"


def rows_of(folder: Path) -> list[dict]:
    return records(read_csv(folder / "recall.csv", RECALL))


def lengths_of(folder: Path) -> dict[tuple[str, str], dict]:
    rows = records(read_csv(folder / "effective_length.csv", EFFECTIVE))
    return {(row["model"], row["task"]): row for row in rows}


@pytest.fixture(scope="module")
def known(home: Path) -> Path:
    """A run of copiers, lookups and a model that knows nothing."""
    models = [
        *own("copier", "copier"), *own("copier-128", "copier?window=128"), *own("nothing", "uniform"),
        *own("lookup", f"lookup?order={ORDER}"), *own("lookup-128", f"lookup?order={ORDER}&window=128"),
    ]  # fmt: skip
    lpe_eval(
        home, "recall", *models, "--tests", "repeat,needle", "--lengths", "64:512:x2", *SMALL, "--out", "known", "-q"
    )
    return home / "known"


def test_the_effective_length_is_the_window_of_a_model_that_has_one(known: Path):
    found = lengths_of(known)
    # Distances are half of the lengths, so that the longest that was tried is 256.
    assert found["copier", "repeat"]["value"] == 256 and found["copier-128", "repeat"]["value"] == 128
    assert found["lookup", "needle"]["value"] == 512 and found["lookup-128", "needle"]["value"] == 128
    for name, task in (("nothing", "repeat"), ("nothing", "needle"), ("copier", "needle")):
        assert found[name, task]["value"] == 0
    for row in found.values():
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
        assert (row["longest"], row["unit"]) == (256 if row["task"] == "repeat" else 512, "tokens")


def test_rows_have_the_values_of_the_closed_forms(known: Path):
    rows = {(row["model"], row["task"], row["length"], row["depth"], row["metric"]): row for row in rows_of(known)}
    for length in (64, 128, 256, 512):
        nothing = rows["nothing", "repeat", length, None, "copy_nats"]
        assert nothing["value"] == pytest.approx(LN, abs=1e-6) and nothing["unit"] == "nats/token"
        assert nothing["distance"] == length // 2 and nothing["n_items"] == 512 // min(64, length // 2)
        assert rows["nothing", "repeat", length, None, "accuracy"]["chance"] == 1 / 258
        inside = length // 2 <= 128
        copied = rows["copier-128", "repeat", length, None, "copy_nats"]["value"]
        assert copied == pytest.approx(0 if inside else LN, abs=1e-6)
        for depth in (0, 50, 100):
            row = rows["lookup-128", "needle", length, depth, "accuracy"]
            assert row["value"] == pytest.approx(1 if row["distance"] <= 128 else 1 / 26, abs=1e-12)
            assert (row["chance"], row["n_items"]) == (1 / 26, 4)
    assert {row["status"] for row in rows.values()} == {"ok"}


def test_tables_say_how_far_and_what_a_guess_is(home: Path, known: Path):
    told = lpe_eval(home, "show", "known")
    for part in ("recall of the far context", "effective length of recall", "repeat (distance)", "≥ 256 [256, 256]",
                 "128 [128, 128]", "gain_nats of at least 0.85", "accuracy of a guess: 0.038", "seed 0"):  # fmt: skip
        assert part in told, part
    assert {path.name for path in (known / "figures").iterdir()} == {
        "recall.png", "recall.svg", "needle.png", "needle.svg",
    }  # fmt: skip
    cited = lpe_eval(home, "show", "known", "--cite")
    assert "jelassi2024repeat" in cited and "hsieh2024ruler" in cited and "modarressi2025nolima" in cited
    assert "arora2023zoology" not in cited
    assert lpe_eval(home, "plot", "known", "--out", "drawn", "--models", "copier").count("needle") >= 1


def test_the_record_knows_the_metrics_and_columns_of_the_tests(known: Path):
    for row in rows_of(known):
        key = ItemKey(row["model"], row["length"], (row["task"], row["distance"], row["depth"]))
        assert row["metric"] in Recall.metrics(key)
    assert Recall.metrics(ItemKey("any", 8, ("needle", None, None))) == ANSWERED
    assert Recall.metrics(ItemKey("any", 8, ("repeat-random", 4, None)))[0] == "copy_nats"
    items = read_parquet(known / "by_item.parquet", item_columns(RECALL_KEYS))
    assert list(items.columns)[3:6] == ["length", "distance", "depth"]
    found = open_folder(known)
    assert Recall.cells(found) == (("model", "task", "length"), 5 * 2 * 4)
    opened = read_provenance(known)["models"]["copier"]["opened"]
    assert (opened["format"], opened["attention"], opened["train_length"]) == ("python", "own", 128)


def test_pairs_are_looked_up_and_a_fixed_bar_holds_accuracies(home: Path):
    order = len("motabe_")
    models = [*own("lookup", f"lookup?order={order}"), *own("near", f"lookup?order={order}&window=64")]
    asked = ("recall", *models, "--tests", "pairs", "--lengths", "128,256", *SMALL, "-q")
    told = lpe_eval(home, *asked, "--least", "0.856", "--out", "pairs")
    assert "accuracy of at least 0.856" in told
    found = lengths_of(home / "pairs")
    assert found["lookup", "pairs"]["value"] == 256 and found["near", "pairs"]["value"] == 0
    told = lpe_eval(home, *asked, "--pairs", "tokens", "--out", "tokens")
    assert "pairs-tokens" in told


def test_models_of_other_tokenizers_get_their_own_tokens(home: Path):
    models = [*own("bytes", "copier"), "-m", "alibi"]
    lpe_eval(home, "recall", *models, "--tests", "repeat", "--lengths", "64,128", *SMALL, "--out", "two", "-q")
    (home / "alphabet.txt").write_text("".join(sorted({*"word0123456789 \n"})))
    asked = ("recall", "-m", f"words=py:{FILE}:uniform", "--tokenizer", "char:alphabet.txt", "--lengths", "64", *SMALL)
    # Of these characters no line with a needle can be written, and what is repeated is what the text holds.
    told = lpe_eval(home, *asked, "--out", "chars", "-q", code=2)
    assert "needle at length 64: assignment cannot be written under this tokenizer: the text has" in told
    lpe_eval(home, *asked, "--tests", "repeat", "--out", "chars", "-q")
    assert {row["status"] for row in rows_of(home / "chars")} == {"ok"}


def test_a_model_with_a_longest_length_has_no_value_beyond_it(home: Path):
    models = [*own("short", "copier?longest=128"), *own("long", "copier")]
    asked = ("--tests", "repeat,needle", "--lengths", "64,128,256", *SMALL, "-q")
    told = lpe_eval(home, "recall", *models, *asked, "--out", "ends")
    assert "n/a: short at 256: " in told
    rows = [row for row in rows_of(home / "ends") if row["model"] == "short"]
    assert {row["length"] for row in rows if row["status"] == "n/a"} == {256}
    assert {row["metric"] for row in rows if row["status"] == "n/a" and row["task"] == "repeat"} == {
        "copy_nats", "control_nats", "gain_nats", "accuracy", "control_accuracy",
    }  # fmt: skip
    found = lengths_of(home / "ends")
    assert found["short", "repeat"]["value"] == 64 and found["long", "repeat"]["value"] == 128


def test_what_a_model_raises_costs_its_own_cells(home: Path):
    models = [*own("breaks", "breaks?at=128"), *own("fine", "uniform"), *own("leaks", "sees_the_end")]
    told = lpe_eval(home, "recall", *models, "--lengths", "128,256", *SMALL, "--out", "partly", "-q", code=4)
    assert "failed: breaks at 128: py:" in told and "fails on 128 tokens: SystemExit: no more" in told
    assert "failed: leaks at 128, 256" in told and "sees the future" in told
    found = {(row["model"], row["task"], row["length"]): row["status"] for row in rows_of(home / "partly")}
    assert {key[2] for key, status in found.items() if key[0] == "breaks" and status == "failed"} == {128}
    assert {status for key, status in found.items() if key[0] == "breaks" and key[2] == 256} == {"ok"}
    assert {status for key, status in found.items() if key[0] == "fine"} == {"ok"}
    assert {status for key, status in found.items() if key[0] == "leaks"} == {"failed"}
    assert lengths_of(home / "partly")["breaks", "repeat"]["status"] == "failed"
    asked = ("--tests", "repeat", "--lengths", "64", *SMALL, "--allow-leak", "-q")
    lpe_eval(home, "recall", *own("leaks", "sees_the_end"), *asked, "--out", "allowed")
    assert all("as --allow-leak asks" in row["note"] for row in rows_of(home / "allowed"))


def test_what_does_not_fit_is_refused_before_anything_is_measured(home: Path):
    for arguments, sentence in [
        (("--tests", "repeat", "--lengths", "63"), "repeat feeds a passage twice, so its lengths are even, not 63"),
        (("--tests", "needle", "--lengths", "16"), "needle at length 16: a needle and its question do not fit into 16"),
        (("--tests", "pairs", "--lengths", "64"), "4 pairs and their questions do not fit into 64 tokens, but in"),
        (("--tests", "needles",), "there is no 'needles'; known: repeat, needle, pairs"),
        (("--tests", ",",), "--tests names none"),
        (("--depths", "half",), "'half' is no depth in per cent; write 0,50,100 or 0:100:+10"),
        (("--depths", "120",), "a depth is between 0 (the beginning) and 100 (the end), not 120"),
        (("--candidates", "27",), "a needle's value is one of 26 letters, so candidates cannot be 27"),
        (("--n-pairs", "27",), "each pair has a letter of its own, so n_pairs is at most 26, not 27"),
        (("--lengths", "0",), "a length must be between 1 and"),
        (("--passages", "songs",), "passages"),
        (("--repeat-tokens", "1000000",), "repeat needs 15632 pieces of 64 tokens, and the text has"),
        (("-m", "alibbi",), "did you mean alibi"),
        (("--split", "dev",), "dev"),
        (("-b", "many",), "neither a whole number nor auto"),
        (("--subset", "en",), "--subset has no effect on the corpus"),
    ]:  # fmt: skip
        model = () if "-m" in arguments else own("any", "uniform")
        told = lpe_eval(home, "recall", *model, "--data", "text", *arguments, "--out", "refused", "-q", code=2)
        assert sentence in told, sentence
        assert not (home / "refused").exists()


def test_a_dry_run_counts_windows_and_tokens_and_writes_nothing(home: Path):
    told = lpe_eval(home, "recall", *own("any", "uniform"), "--lengths", "128,256", *SMALL, "--dry-run")
    # 512 targets need 8 passages of 64 tokens and 4 of 128, each with a control; needles have 3 depths and a control.
    assert f"any repeat {2 * 8 + 2 * 4} " in told and f"any needle {2 * 4 * 4} " in told and "any pairs 16" in told
    assert "tokens in all" in told


def test_lengths_and_depths_are_written_as_everywhere(home: Path):
    told = lpe_eval(home, "recall", *own("any", "uniform"), "--tests", "needle", "--lengths", "64:256:x2", "--depths",
                    "0:100:+25", *SMALL, "--out", "depths", "-q")  # fmt: skip
    assert "needle" in told
    rows = rows_of(home / "depths")
    assert {row["length"] for row in rows} == {64, 128, 256}
    assert {row["depth"] for row in rows} == {0, 25, 50, 75, 100, None}


def test_a_stored_spec_measures_the_same_again(home: Path, known: Path):
    lpe_eval(home, "run", known / "spec.yaml", "--out", "again", "-q")
    for name in ("recall.csv", "effective_length.csv", "by_item.parquet"):
        assert (home / "again" / name).read_bytes() == (known / name).read_bytes()


def test_more_windows_in_a_batch_change_no_value(home: Path):
    asked = ("recall", "-m", "alibi", "--lengths", "128", *SMALL)
    tables = []
    for number, size in enumerate((3, 16)):
        lpe_eval(home, *asked, "-b", size, "--out", f"batch-{number}", "-q")
        tables.append(pd.read_csv(home / f"batch-{number}" / "recall.csv"))
    one, other = (each["value"].to_numpy() for each in tables)
    assert one == pytest.approx(other, abs=2e-5)


def test_columns_are_listed(home: Path):
    told = lpe_eval(home, "list", "columns")
    for part in ("distance", "depth", "recall.csv", "effective_length.csv", "rule", "longest"):
        assert part in told, part
    with (home / "known" / "effective_length.csv").open() as file:
        assert next(csv.reader(file)) == [column.name for column in EFFECTIVE]


def test_the_prompts_of_the_harness_need_its_words(home: Path):
    asked = ("recall", *own("any", "uniform"), "--tests", "needle", "--needle", "niah_single_1", "--prompts", "2",
             "--data", "text", "--out", "niah", "-q")  # fmt: skip
    if find_spec("wonderwords") is None:
        told = lpe_eval(home, *asked, "--lengths", "1024", code=2)
        assert "--needle niah_single_1 needs an extra: pip install 'lpe-eval[ruler]'" in told
        return
    told = lpe_eval(home, *asked, "--lengths", "512,1024")
    assert "exact_match" in told and "accuracy of a guess: 0.1" in told
    rows = {(row["length"], row["metric"]): row for row in rows_of(home / "niah")}
    for length in (512, 1024):
        assert rows[length, "value_nats"]["value"] == pytest.approx(8 * LN, abs=1e-4)
        assert rows[length, "accuracy"]["value"] == pytest.approx(0.1)
    told = lpe_eval(home, *asked, "--lengths", "256", "--overwrite", code=2)
    assert "no prompt of niah_single_1 fits into 256 tokens" in told
