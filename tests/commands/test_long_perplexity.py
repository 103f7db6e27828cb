"""Perplexity of key tokens: the numbers of LongPPL's own code, on its own windows, and what a run makes of it.

`tests/golden/long_perplexity` holds three short texts, two tokenizers (byte-level BPE), and what `compute_longppl` of
PKU-ML/LongPPL (commit 1decd2a) finds for models of `tests/support/tiny_llama.py`: spans, key tokens, perplexities.
Each text has 160 tokens in both tokenizers, so a window of 159 holds all of it, as the code's only long pass does.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.report.folders.long_perplexity import read_long_rows
from tests.support.native_checkpoints import checkpoint
from tests.support.tiny_llama import save_llama

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parents[1] / "golden" / "long_perplexity"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))
CASES = {case["name"]: case for case in EXPECTED["cases"]}
SHORT = EXPECTED["trunc_len"] + EXPECTED["sliding_window"] - 1
LONG = EXPECTED["tokens"] - 1


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The texts, one file each, and the four models."""
    root = tmp_path_factory.mktemp("long")
    (root / "texts").mkdir()
    for number, text in enumerate(json.loads((GOLDEN / "documents.json").read_text(encoding="utf-8"))):
        (root / "texts" / f"{number}.txt").write_bytes(text.encode())
    first = json.loads((GOLDEN / "first.json").read_text(encoding="utf-8"))
    first["post_processor"]["trim_offsets"] = True
    (root / "trimmed.json").write_text(json.dumps(first))
    tokenizers = {"first": GOLDEN / "first.json", "second": GOLDEN / "second.json", "trimmed": root / "trimmed.json"}
    for seed, (name, tokenizer) in enumerate(
        {"one": "first", "two": "second", "three": "trimmed", "four": "trimmed"}.items(), 1
    ):
        size = len(json.loads(tokenizers[tokenizer].read_text(encoding="utf-8"))["model"]["vocab"])
        save_llama(root / name, tokenizers[tokenizer], size, seed)
    return root


def run(place: Path, out: Path, *more: object, models: tuple[str, ...] = ("one",), code: int = 0) -> str:
    chosen = [part for name in models for part in ("-m", f"{name}=hf:{place / name}")]
    fixed = ["--data", place / "texts", "--protocol", "sliding", "--stride", EXPECTED["sliding_window"]]
    fixed += ["--lengths", f"{SHORT},{LONG}", "--max-tokens", 10000, "--out", out, "-q", "--bos", "never"]
    limits = ["--key-gain", EXPECTED["alpha"], "--key-loss", -EXPECTED["beta"], "--key-weighting", "released"]
    command = ["ppl", *chosen, *fixed, *more]
    command += limits if "--key-tokens" in more and "--key-gain" not in more else []
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(part) for part in command])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def rows(out: Path, model: str, metric: str = "long_perplexity") -> pd.DataFrame:
    found = pd.DataFrame(read_long_rows(out))
    return found[(found.model == model) & (found.metric == metric)].set_index("length")


def as_published(out: Path, model: str, case: str) -> None:
    """The row of the long context is what the code says of all texts together."""
    wanted, found = CASES[case], rows(out, model).loc[LONG]
    assert found.n_tokens == sum(each["n_key_token"] or 0 for each in wanted["documents"])
    assert found.value == pytest.approx(wanted["longppl"], rel=2e-6)
    assert found.n_targets == sum(each["n_token"] - 1 for each in wanted["documents"])
    assert rows(out, model, "released_perplexity").loc[LONG].value == pytest.approx(wanted["ppl"], rel=2e-6)


def test_a_model_chooses_for_itself_as_the_code_does(place: Path, tmp_path: Path):
    told = run(place, tmp_path / "run", "--key-tokens", "self")
    as_published(tmp_path / "run", "one", "self")
    count = sum(each["n_key_token"] for each in CASES["self"]["documents"])
    assert "perplexity of key tokens" in told and f"{count:.0f} of 477 scored tokens" in told
    kept = pd.read_parquet(tmp_path / "run" / "by_token")
    short, long = (kept[kept.length == each].set_index(["document", "position"]).loss for each in (SHORT, LONG))
    key = (short - long > EXPECTED["alpha"]) & (long < -EXPECTED["beta"])
    for number, each in enumerate(CASES["self"]["documents"]):
        assert key[key].loc[f"{number}.txt"].index.tolist() == each["key_tokens"]


def test_another_model_chooses_whose_tokenizer_is_another_one(place: Path, tmp_path: Path):
    run(place, tmp_path / "run", "--key-tokens", "model:two", models=("one", "two"))
    as_published(tmp_path / "run", "one", "other tokenizer")
    run(place, tmp_path / "back", "--key-tokens", "model:one", models=("one", "two"))
    as_published(tmp_path / "back", "two", "other way round")
    as_published(tmp_path / "back", "one", "self")


def test_another_model_with_the_same_tokenizer_chooses_places_and_needs_no_spans(place: Path, tmp_path: Path):
    run(place, tmp_path / "run", "--key-tokens", "model:four", models=("three", "four"))
    kept = pd.read_parquet(tmp_path / "run" / "by_token").set_index(["model", "length", "document", "position"])
    kept = kept.loss.sort_index()
    key = (kept["four", SHORT] - kept["four", LONG] > EXPECTED["alpha"]) & (kept["four", LONG] < -EXPECTED["beta"])
    found = rows(tmp_path / "run", "three").loc[LONG]
    assert found.n_tokens == key.sum()
    assert found.value == pytest.approx(np.exp(kept["three", LONG][key].astype(float).mean()), rel=1e-9)


@pytest.mark.parametrize(("case", "model"), [("other tokenizer", "one"), ("trimmed", "three")])
def test_stored_spans_of_the_code_are_read(place: Path, tmp_path: Path, case: str, model: str):
    """Its second tokenizer gives a blank to the word after it, the third one leaves it out of a span."""
    (tmp_path / "spans").mkdir()
    for number, each in enumerate(CASES[case]["documents"]):
        (tmp_path / "spans" / f"slice_{number}.txt").write_text(each["spans"])
    run(place, tmp_path / "run", "--key-tokens", f"spans:{tmp_path / 'spans'}", models=(model,))
    as_published(tmp_path / "run", model, case)


def test_what_a_model_chose_can_be_given_to_later_runs(place: Path, tmp_path: Path):
    run(place, tmp_path / "chooser", "--key-tokens", "self", models=("two",))
    run(place, tmp_path / "run", "--key-tokens", f"spans:{tmp_path / 'chooser'}")
    as_published(tmp_path / "run", "one", "other tokenizer")
    assert not (tmp_path / "run" / "key_tokens.jsonl").exists()
    lines = [json.loads(line) for line in (tmp_path / "chooser" / "key_tokens.jsonl").read_text().splitlines()]
    text = {each["document"]: (place / "texts" / each["document"]).read_text(encoding="utf-8") for each in lines}
    for each in lines:
        said = set(
            CASES["other tokenizer"]["documents"][int(each["document"].removesuffix(".txt"))]["spans"].split(";")
        )
        found = {str(pair) for pair in characters_of(each, text)}
        # Where only the second of the tokens of a character is a key token, the code tells the character.
        missing = [json.loads(pair) for pair in said - found]
        assert found <= said and all(not text[each["document"]][a:b].isascii() and b == a + 1 for a, b in missing)
    by_hand = [{"document": each["document"], "characters": characters_of(each, text)} for each in lines]
    told = "\n".join(map(json.dumps, by_hand))
    (tmp_path / "by_hand.jsonl").write_text(told)
    run(place, tmp_path / "by hand", "--key-tokens", f"spans:{tmp_path / 'by_hand.jsonl'}")
    as_published(tmp_path / "by hand", "one", "other tokenizer")


def characters_of(line: dict, text: dict[str, str]) -> list[list[int]]:
    raw = text[line["document"]].encode()
    return [[len(raw[:a].decode()), len(raw[:b].decode())] for a, b in line["bytes"]]


def test_the_same_targets_count_at_every_length_and_the_defaults_are_those_of_the_code(place: Path, tmp_path: Path):
    run(place, tmp_path / "run", "--key-tokens", "self")
    found = rows(tmp_path / "run", "one")
    assert found.n_tokens.nunique() == 1 and found.value[SHORT] > found.value[LONG]
    told = run(place, tmp_path / "default", "--key-tokens", "self", "--key-gain", "2")
    found = rows(tmp_path / "default", "one")
    assert set(found.status) == {"n/a"} and found.value.isna().all()
    assert "no target is a key token: none gains more than 2 nats from 39 to 159" in " ".join(told.split())
    spec = (tmp_path / "default" / "spec.yaml").read_text()
    assert "gain: 2.0" in spec and "loss: 2.0" in spec and "weighting: tokens" in spec


def test_the_rows_are_beside_those_of_a_run_and_change_none_of_them(place: Path, tmp_path: Path):
    run(place, tmp_path / "plain")
    run(place, tmp_path / "key", "--key-tokens", "self")
    plain, key = (pd.read_csv(tmp_path / name / "rows.csv").drop(columns="run") for name in ("plain", "key"))
    pd.testing.assert_frame_equal(plain, key)
    assert not (tmp_path / "plain" / "by_token").exists()
    before = (tmp_path / "key" / "long_perplexity.csv").read_bytes()
    (tmp_path / "key" / "long_perplexity.csv").unlink()
    run(place, tmp_path / "key", "--key-tokens", "self")
    assert (tmp_path / "key" / "long_perplexity.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--key-tokens", "model:three"), "there is no model of this run named 'three'; known: one"),
        (("--key-tokens", "me"), "chosen by self, model:NAME or spans:PATH, not by 'me'"),
        (("--key-tokens", "self", "--protocol", "nonoverlap", "--stride", "L/2"), "belongs to the protocols"),
        (("--key-tokens", "self", "--lengths", "32"), "key tokens are told by two lengths"),
        (("--key-tokens", "self", "--key-short", "64"), "--key-short 64 is none of the lengths below the longest"),
        (("--key-gain", "1"), "--key-gain belongs to --key-tokens"),
        (("--key-tokens", "self", "--key-gain", "nan"), "key_tokens.gain"),
        (("--key-tokens", "spans:nowhere"), "nowhere cannot be read"),
        (("--key-tokens", "spans:one.jsonl", "--pack"), "--pack joins into one"),
    ],
)
def test_what_cannot_be_is_one_sentence(place: Path, tmp_path: Path, flags: tuple[str, ...], sentence: str):
    told = run(place, tmp_path / "run", *flags, code=2)
    assert sentence in " ".join(told.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("slice_0.txt", "__import__('os').system('touch ran')", "where a span such as [12, 15] belongs"),
        ("slice_0.txt", "[1, 2];[3, 9**9]", "where a span such as [12, 15] belongs"),
        ("slice_0.txt", "[5, 2]", "a span from 5 to 2"),
        ("slice_0.txt", "[5, 99999]", "the spans are of another text"),
        ("slice_7.txt", "[5, 9]", "no document that is measured has one of the numbers"),
        ("notes.txt", "[5, 9]", "holds no key tokens"),
        ("key_tokens.jsonl", '{"document": "0.txt", "bytes": [[1, 2.5]]}', "pairs of whole numbers"),
        ("key_tokens.jsonl", '{"document": "0.txt"}', "names no spans"),
        ("key_tokens.jsonl", "{", "is not JSON"),
        ("key_tokens.jsonl", '{"document": "9.txt", "bytes": [[1, 2]]}', "they are of another text"),
        (
            "key_tokens.jsonl",
            '{"model": "a", "document": "0.txt", "bytes": []}\n{"model": "b", "document": "1.txt", "bytes": []}',
            "a () and b () chose",
        ),
    ],
)
def test_stored_spans_are_never_run_and_what_is_none_is_one_sentence(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, sentence: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spans").mkdir()
    (tmp_path / "spans" / name).write_text(content)
    told = run(place, tmp_path / "run", "--key-tokens", "spans:spans", code=2)
    assert sentence in " ".join(told.split())
    assert {each.name for each in tmp_path.iterdir()} == {"spans"}


def test_a_model_without_a_value_chooses_nothing_and_says_so(place: Path, tmp_path: Path):
    short = checkpoint(tmp_path / "short", "learned")
    run(place, tmp_path / "run", "--key-tokens", "model:short", "-m", short)
    one, other = (rows(tmp_path / "run", name) for name in ("one", "short"))
    assert set(one.status) == {"n/a"} and set(other.status) == {"n/a"}
    assert "short chooses the key tokens and has no value at 39" in set(one.note).pop()
    assert rows(tmp_path / "run", "one", "released_perplexity").value.notna().all()
