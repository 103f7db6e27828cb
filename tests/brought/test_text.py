"""Texts that people bring: formats, splits, marks, nulls. What each case did before, and what it does.

Numbers are those of the collections: R is a report from a public tracker, F a fault of the first hour.
"""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.data.corpus import Corpus, open_corpus
from lpe_eval.data.selection import Selection, choose_documents
from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.errors import DataError
from lpe_eval.report.folders.ppl import read_run
from lpe_eval.spec.corpus_spec import CorpusSpec
from tests.support.native_checkpoints import checkpoint

TRAIN, TEST = "TRAIN " + "a b " * 60, "TEST " + "c d " * 60


class Case(NamedTuple):
    """A text, and which documents come of it.

    Attributes:
        number: where it is in the collections.
        before: what the program did.
        make: puts it into a folder, and returns what is typed.
        expected: the documents, or a part of the sentence.
        fields: what flags ask for.
    """

    number: str
    before: str
    make: Callable[[Path], str]
    expected: list[str] | str
    fields: dict[str, Any] = {}


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(*texts: str | None) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def table(path: Path, *texts: str | None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path, row_group_size=2)
    return path


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(content)
    return sink.getvalue().to_pybytes()


def splits(folder: Path, pattern: str, *names: str) -> str:
    for name in names:
        path = folder / pattern.format(name)
        text = TRAIN if "train" in name else TEST
        table(path, text) if path.suffix == ".parquet" else put(path, lines(text) if path.suffix == ".jsonl" else text)
    return str(folder)


def saved(folder: Path) -> str:
    from datasets import Dataset, DatasetDict

    sets = {"train": Dataset.from_dict({"text": [TRAIN]}), "test": Dataset.from_dict({"text": [TEST, None, "x"]})}
    DatasetDict(sets).save_to_disk(folder / "saved")
    put(folder / "saved" / "test" / "cache-1f2e.arrow", b"not one of its files")
    return str(folder / "saved")


def subsets(folder: Path) -> str:
    names = ("english", "german")
    configs = [f"- config_name: {n}\n  data_files:\n  - {{split: test, path: {n}.jsonl}}\n" for n in names]
    put(folder / "two" / "README.md", "---\nconfigs:\n" + "".join(configs) + "---\n")
    for name in names:
        put(folder / "two" / f"{name}.jsonl", lines(name))
    return f"hub:{folder / 'two'}"


def debris(folder: Path) -> str:
    put(folder / "a.txt", TEST)
    put(folder / "._a.txt", b"\0\5\x16\7Mac OS X")
    put(folder / "__MACOSX" / "a.txt", b"\0\5\x16\7Mac OS X")
    return str(folder)


SHARD, HASHED = "-00000-of-00001.parquet", "-00000-of-00001-0123456789abcdef.parquet"
GERMAN = {"subset": "german"}
ROWS = lines("x", "y").encode()
MARK = b"\xef\xbb\xbf"


def file(name: str, content: str | bytes) -> Callable[[Path], str]:
    return lambda folder: str(put(folder / name, content))


def parts(pattern: str, *names: str) -> Callable[[Path], str]:
    return lambda folder: splits(folder, pattern, *names)


CASES = [
    Case("F1 folders", "scored train/ too", parts("{}/a.txt", "train", "valid", "test"), [TEST]),
    Case("F1 files", "scored train.jsonl too", parts("{}.jsonl", "train", "test"), [TEST]),
    Case("F1 no test", "scored train.txt too", parts("{}.txt", "train", "validation"), [TEST]),
    Case("F1 named last", "scored it", parts("wiki.{}.txt", "train", "test"), [TEST]),
    Case("F1 behind a dash", "scored it", parts("c4-{}.txt", "training", "dev"), [TEST]),
    Case("F1 training text alone", "scored it", parts("{}/a.txt", "train"), "--split train"),
    Case("F1 everything", "the default", parts("{}/a.txt", "train", "test"), [TEST, TRAIN], {"split": "all"}),
    Case("F1 another", "as now", parts("{}/a.txt", "train", "val", "test"), [TRAIN], {"split": "train"}),
    Case("F1 no training text", "read whole", parts("{}.txt", "a", "test_of_time"), [TEST, TEST]),
    Case("R9", "mixed train and test", parts("data/{}" + SHARD, "train", "test"), [TEST]),
    Case("R9 hashed", "mixed", parts("data/{}" + HASHED, "train", "test"), [TEST]),
    Case("R9 below a subset", "mixed", parts("en/{}" + SHARD, "train", "test"), [TEST]),
    Case("R9 asked", "no split", parts("data/{}" + SHARD, "train", "test"), [TEST], {"split": "test"}),
    Case("R9 alike", "no split", parts("data/{}" + SHARD, "train", "validation"), [TEST], {"split": "valid"}),
    Case("R10", "half of the library's error", subsets, "english, german; choose one with --subset"),
    Case("R10 chosen", "no flag", subsets, ["german"], GERMAN),
    Case("R10 streaming", "no flag", subsets, ["german"], {**GERMAN, "streaming": True}),
    Case("R10 misspelt", "a list in Python", subsets, "no subset de, only english, german", {"subset": "de"}),
    Case("R21 BOM .jsonl", "not JSON", file("a.jsonl", MARK + lines("x").encode()), ["x"]),
    Case("R21 BOM .txt", "kept the mark as text", file("a.txt", MARK + b"x"), ["x"]),
    Case("R21 UTF-16 .txt", "binary data", file("a.txt", TEST.encode("utf-16")), "is UTF-16"),
    Case("R21 no mark", "binary data", file("a.txt", TEST.encode("utf-16-le")), "iconv -f UTF-16LE"),
    Case("R21 big end", "binary data", file("a.txt", TEST.encode("utf-16-be")), "iconv -f UTF-16BE"),
    Case("R21 UTF-32", "binary data", file("a.txt", TEST.encode("utf-32")), "is UTF-32"),
    Case("R21 UTF-16 .jsonl", "not UTF-8", file("a.jsonl", lines("x").encode("utf-16")), "is UTF-16"),
    Case("R22 .jsonl", "ended the run", file("a.jsonl", lines("x", None, "y")), ["x", "None", "y"]),
    Case("R22 .parquet", "ended the run", lambda at: str(table(at / "a.parquet", "x", None, "y")), ["x", "None", "y"]),
    Case("R23", "no document", saved, [TEST, "None", "x"]),
    Case("R23 hub:", "use load_from_disk", lambda at: f"hub:{saved(at)}", [TEST, "None", "x"]),
    Case("R23 a split", "no document", lambda at: f"{saved(at)}/test", [TEST, "None", "x"]),
    Case("R23 hub: a split", "use load_from_disk", lambda at: f"hub:{saved(at)}/train", [TRAIN], {"split": "all"}),
    Case("R30", "a.txt is binary data", debris, [TEST]),
    Case("R32 .jsonl.gz", "of no kind", file("a.jsonl.gz", gzip.compress(ROWS)), ["x", "y"]),
    Case("R32 .json.gz", "of no kind", file("a.json.gz", gzip.compress(ROWS)), ["x", "y"]),
    Case("R32 .jsonl.zst", "of no kind", file("a.jsonl.zst", zstd(ROWS)), ["x", "y"]),
    Case("R32 .txt.gz", "of no kind", file("a.txt.gz", gzip.compress(TEST.encode())), [TEST]),
    Case("R32 .txt.zst", "of no kind", file("a.txt.zst", zstd(TEST.encode())), [TEST]),
    Case("R32 two members", "of no kind", file("a.txt.gz", gzip.compress(b"x") + gzip.compress(b"yz")), ["xyz"]),
    Case("R32 folder", "passed over", lambda at: str(put(at / "a.jsonl.gz", gzip.compress(ROWS)).parent), ["x", "y"]),
    Case("R32 cut short", "of no kind", file("a.txt.gz", gzip.compress(TEST.encode() * 9)[:-20]), "cut short"),
    Case("R32 BOM", "of no kind", file("a.txt.gz", gzip.compress(MARK + b"x")), ["x"]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.number)
def test_a_text_gives_its_documents_or_one_sentence(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    typed = case.make(tmp_path / "text")

    def read() -> list[str]:
        corpus = open_corpus(CorpusSpec.parse(typed).model_copy(update=case.fields))
        found = corpus.documents(corpus.split)
        return [str(each.text) if isinstance(each.text, str | None) else each.text.whole() for each in found]

    if isinstance(case.expected, list):
        assert read() == case.expected
        return
    with pytest.raises(DataError) as caught:
        read()
    assert case.expected in str(caught.value)
    assert "\n" not in str(caught.value)


def chosen(corpus: Corpus, max_tokens: int = 10_000, longest: int = 2, **more: Any) -> Selection:
    return choose_documents(
        corpus, corpus.split, open_tokenizer("bytes"), longest=longest, max_tokens=max_tokens, seed=0, **more
    )


@pytest.mark.parametrize(
    "case", [each for each in CASES if isinstance(each.expected, list)], ids=lambda each: each.number
)
def test_selecting_reads_the_same_documents_one_by_one(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    corpus = open_corpus(CorpusSpec.parse(case.make(tmp_path / "text")).model_copy(update=case.fields))
    whole = [text for text in case.expected if text != "None" and len(text) > 1]
    if not whole:
        with pytest.raises(DataError, match="has the 3 tokens"):
            chosen(corpus)
        return
    found = chosen(corpus)
    assert sorted(bytes(each.tokens.tolist()).decode() for each in found.documents) == sorted(whole)
    assert found.n_without_text == case.expected.count("None")
    assert found.n_seen == len(case.expected)


def test_f1_and_r22_are_said_on_the_screen_and_kept_in_the_provenance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "tiny")
    put(tmp_path / "d" / "train.jsonl", lines(TRAIN))
    put(tmp_path / "d" / "test.jsonl", lines(TEST * 4, None, "short"))
    typed = ["ppl", "-m", "tiny", "--data", "d", "--lengths", "16", "--max-tokens", "5000", "--out", "o"]
    found = CliRunner().invoke(app, typed)
    said = " ".join(found.output.split())
    assert found.exit_code == 0, found.output
    assert "d holds the splits train, test; test is measured. Name another with --split" in said
    assert "1 rows hold no text (null) and were passed over" in said
    assert f"the text gives {4 * len(TEST):,} of the 5,000 tokens asked for: 1 of its 3 documents have fewer" in said
    run = read_run(Path("o"))
    facts = run.provenance["models"]["tiny"]
    assert (facts["documents_without_text"], facts["tokens_missing"]) == (1, 5000 - 4 * len(TEST))
    assert set(run.rows.split) == {"test"}
    for flag, value in (("--subset", "en"), ("--token-dtype", "int7")):
        refused = CliRunner().invoke(app, [*typed, "--overwrite", flag, value])
        assert refused.exit_code == 2, refused.output


def test_f17_token_ids_need_no_tokenizer_and_their_type_has_a_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "tiny", vocab_size=500)
    config = tmp_path / "tiny" / "config.yaml"
    config.write_text(config.read_text().replace("tokenizer: bytes", "tokenizer: hf:./gone"))
    ids = np.arange(900) * 7 % 499
    ids.astype(np.int32).tofile(tmp_path / "ids.bin")
    ids.astype(np.uint16).tofile(tmp_path / "ids.dat")
    values = []
    for name, dtype in (("ids.bin", "int32"), ("ids.dat", "uint16")):
        typed = [
            "ppl",
            "-m",
            "tiny",
            "--data",
            name,
            "--token-dtype",
            dtype,
            "--lengths",
            "16",
            "-q",
            "--out",
            f"o{dtype}",
        ]
        found = CliRunner().invoke(app, [*typed, "--max-tokens", "900"])
        assert found.exit_code == 0, found.output
        values.append(read_run(Path(f"o{dtype}")).rows.value.tolist())
    assert np.array_equal(values[0], values[1], equal_nan=True)
    told = CliRunner().invoke(app, ["ppl", "-m", "tiny", "--data", "ids.bin", "--lengths", "16", "--out", "o3"])
    assert "give --token-dtype" in told.output
