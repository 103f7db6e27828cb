"""Corpora: real files on disk, and what is said about the ones that cannot be read."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lpe_eval.data.corpus import Corpus, open_corpus
from lpe_eval.data.texts import text_bytes
from lpe_eval.errors import DataError, SpecError, UnknownName
from lpe_eval.spec.corpus_spec import CorpusSpec

TEXTS = ["first text", "zweiter Text: Größe 日本", "third\r\n\ttext"]


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    import datasets

    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    datasets.disable_progress_bars()
    yield cache
    datasets.enable_progress_bars()


def opened(path: Path, **fields: object) -> Corpus:
    return open_corpus(CorpusSpec.parse(str(path)).model_copy(update=fields))


def read(corpus: Corpus, split: str = "all") -> dict[str, str]:
    return {document.name: document.text for document in corpus.documents(split)}


def write_json_lines(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path: Path, texts: list[str], column: str = "text") -> Path:
    pq.write_table(pa.table({column: texts, "id": list(range(len(texts)))}), path)
    return path


def test_the_short_form_names_a_corpus_a_dataset_or_a_path(tmp_path: Path) -> None:
    stdlib = CorpusSpec.parse("python-stdlib")
    assert (stdlib.name, stdlib.path, str(stdlib)) == ("python_stdlib", None, "python-stdlib")
    hub = CorpusSpec.parse("hub:org/name@v1")
    assert (hub.name, hub.path, hub.revision, str(hub)) == ("hub", "org/name", "v1", "hub:org/name@v1")
    assert CorpusSpec.parse("data/x.bin").name == "tokenized_bin"
    assert CorpusSpec.parse(str(tmp_path)) == CorpusSpec(name="local", path=str(tmp_path))
    assert CorpusSpec.model_validate("hub:org/name") == CorpusSpec(name="hub", path="org/name")
    for text in ("", "hub:"):
        with pytest.raises(SpecError):
            CorpusSpec.parse(text)
    with pytest.raises(UnknownName, match="did you mean python_stdlib"):
        CorpusSpec.parse("python-stdlibs")


def test_the_standard_library_is_split_into_disjoint_parts_that_hold_all_of_it() -> None:
    corpus = open_corpus(CorpusSpec.parse("python-stdlib"))
    splits = {split: read(corpus, split) for split in ("train", "valid", "test")}
    names = [name for split in splits.values() for name in split]
    assert len(names) == len(set(names))
    assert {"inspect.py", "asyncio/tasks.py", "json/decoder.py"} <= set(names)
    assert 0.6 < len(splits["train"]) / len(names) < 0.9
    assert sum(len(text) >= 8193 for text in splits["test"].values()) >= 20
    assert corpus.split == "test"
    assert corpus.describe()["python"] == sys.version.split()[0]


def test_the_standard_library_holds_its_files_and_neither_tests_nor_packages() -> None:
    corpus = open_corpus(CorpusSpec.parse("python-stdlib"))
    documents = [document for split in ("train", "valid", "test") for document in corpus.documents(split)]
    by_name = {document.name: document.text for document in documents}
    assert text_bytes(by_name["inspect.py"]) == Path(os.__file__).with_name("inspect.py").read_bytes()
    parts = {part for name in by_name for part in name.split("/")}
    assert not parts & {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "encodings"}
    for split in ("train", "valid", "test"):
        names = [document.name for document in corpus.documents(split)]
        assert names == sorted(names)


def test_a_split_that_is_not_there_is_refused() -> None:
    with pytest.raises(DataError, match="it has train, valid, test"):
        read(open_corpus(CorpusSpec.parse("python-stdlib")), "dev")


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(TEXTS[2].encode())
    corpus = opened(path)
    assert read(corpus) == {"a.txt": TEXTS[2]}
    assert corpus.split == "all"
    assert corpus.describe()["path"] == str(path.resolve())


def test_a_row_of_json_lines_or_parquet_is_a_document(tmp_path: Path) -> None:
    lines = write_json_lines(tmp_path / "a.jsonl", [{"text": text, "id": 1} for text in TEXTS])
    table = write_parquet(tmp_path / "a.parquet", TEXTS, column="body")
    assert list(read(opened(lines)).values()) == TEXTS
    assert read(opened(table, text_column="body")) == {f"a.parquet#{row}": text for row, text in enumerate(TEXTS)}


def test_a_folder_is_read_with_everything_below_it_in_the_order_of_paths(tmp_path: Path) -> None:
    deep = tmp_path / "b" / "deep"
    deep.mkdir(parents=True)
    deep.joinpath("z.txt").write_text("z")
    deep.joinpath("empty.txt").touch()
    deep.joinpath("picture.png").write_bytes(b"\0\1")
    tmp_path.joinpath("a.txt").write_text("a")
    write_json_lines(tmp_path / "b" / "c.jsonl", [{"text": "c"}])
    write_parquet(tmp_path / "d.parquet", ["d"])
    assert list(read(opened(tmp_path)).items()) == [
        ("a.txt", "a"), ("b/c.jsonl#1", "c"), ("b/deep/z.txt", "z"), ("d.parquet#0", "d"),
    ]  # fmt: skip


def test_a_folder_with_a_loop_of_links_is_read_once(tmp_path: Path) -> None:
    tmp_path.joinpath("a.txt").write_text("a")
    tmp_path.joinpath("again").symlink_to(tmp_path, target_is_directory=True)
    tmp_path.joinpath("self.txt").symlink_to(tmp_path / "self.txt")
    assert read(opened(tmp_path)) == {"a.txt": "a"}


def test_a_folder_has_the_splits_that_its_names_say(tmp_path: Path) -> None:
    tmp_path.joinpath("train").mkdir()
    tmp_path.joinpath("train", "a.txt").write_text("a")
    tmp_path.joinpath("test.txt").write_text("b")
    corpus = opened(tmp_path)
    assert read(corpus, "train") == {"train/a.txt": "a"}
    assert read(corpus, "test") == {"test.txt": "b"}
    assert len(read(corpus, "all")) == 2
    with pytest.raises(DataError, match="has no split 'valid'"):
        read(corpus, "valid")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "is empty"),
        ("junk.txt", b"\x7fELF\0\0", "looks like binary"),
        ("latin.txt", "Größe".encode("latin-1"), r"not UTF-8 \(byte 2\)"),
        ("latin.jsonl", b'{"text": "\xe4"}', "line 1, is not UTF-8"),
        ("broken.jsonl", b'{"text": "a"}\n{"text": ', "line 2, is not JSON"),
        ("list.jsonl", b"[1]", "holds no JSON object"),
        ("column.jsonl", b'{"body": "a"}', "has no column 'text', only 'body'"),
        ("number.jsonl", b'{"text": 3}', "holds int, not text"),
        ("half.jsonl", b'{"text": "\\ud83d"}', "half a surrogate pair"),
        ("empty.jsonl", b"\n", "holds no document"),
        ("junk.parquet", b"PAR1 no table", "no readable Parquet"),
        ("table.csv", b"text\na", "of no kind that can be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_in_one_sentence(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(opened(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_parquet_file_without_the_column_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", TEXTS, column="body")
    with pytest.raises(DataError, match="has no column 'text', only 'body', 'id'"):
        read(opened(path))


def test_what_is_missing_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "no.txt", tmp_path / "no.bin"):
        with pytest.raises(DataError, match=r"there is no file"):
            opened(path)
    with pytest.raises(DataError, match="holds no document"):
        read(opened(tmp_path))
    for name in ("local", "hub", "tokenized_bin"):
        with pytest.raises(SpecError, match="needs"):
            open_corpus(CorpusSpec(name=name))
    tmp_path.joinpath("a.txt").write_text("a")
    with pytest.raises(DataError, match="has no split 'test'"):
        read(opened(tmp_path / "a.txt"), "test")


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_token_ids_come_back_as_they_were_stored(tmp_path: Path, dtype: str) -> None:
    ids = np.array([5, 6, 0, 7, 0, 0, 8], dtype=dtype)
    path = tmp_path / "ids.bin"
    ids.tofile(path)
    (whole,) = opened(path, token_dtype=dtype).documents("all")
    assert whole.tokens is not None
    assert whole.tokens.tolist() == ids.tolist()
    tmp_path.joinpath("ids.bin.json").write_text(json.dumps({"dtype": dtype, "document_end": 0}))
    corpus = opened(path)
    parts = [each.tokens.tolist() for each in corpus.documents("all") if each.tokens is not None]
    assert parts == [[5, 6, 0], [7, 0], [0], [8]]
    assert corpus.describe()["token_dtype"] == dtype


def test_a_file_of_ids_that_does_not_say_its_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ids.bin"
    path.write_bytes(b"\0" * 6)
    with pytest.raises(SpecError, match="uint16 or uint32"):
        opened(path)
    with pytest.raises(DataError, match="no whole number of uint32"):
        opened(path, token_dtype="uint32")
    for content in ('{"dtype": "int8"}', '{"type": "uint16"}', "[]", "{"):
        tmp_path.joinpath("ids.bin.json").write_text(content)
        with pytest.raises(DataError, match=r"ids\.bin\.json") as caught:
            opened(path)
        assert "\n" not in str(caught.value)
    tmp_path.joinpath("ids.bin.json").unlink()
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        opened(path, token_dtype="uint16")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_folder_of_tables_is_read_through_datasets(
    tmp_path: Path, datasets_cache: Path, streaming: bool, kind: str
) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    if kind == "parquet":
        write_parquet(folder / "test.parquet", TEXTS)
        write_parquet(folder / "train.parquet", ["other"])
    else:
        write_json_lines(folder / "test.jsonl", [{"text": text} for text in TEXTS])
        write_json_lines(folder / "train.jsonl", [{"text": "other"}])
    corpus = open_corpus(CorpusSpec(name="hub", path=str(folder), streaming=streaming))
    assert corpus.streams is streaming
    assert read(corpus, corpus.split) == {f"test/{row}": text for row, text in enumerate(TEXTS)}
    assert read(corpus, "train") == {"train/0": "other"}
    assert corpus.describe()["revision"] == "main"
    with pytest.raises(DataError, match="cannot be loaded") as caught:
        read(corpus, "dev")
    assert "\n" not in str(caught.value)
    other = open_corpus(CorpusSpec(name="hub", path=str(folder), streaming=streaming, text_column="body"))
    with pytest.raises(DataError, match="has no column 'body'"):
        read(other, "test")


def test_a_dataset_script_is_refused(tmp_path: Path, datasets_cache: Path) -> None:
    folder = tmp_path / "scripted"
    folder.mkdir()
    folder.joinpath("scripted.py").write_text("raise SystemExit(9)\n")
    with pytest.raises(DataError, match="none is run"):
        read(open_corpus(CorpusSpec(name="hub", path=str(folder))), "test")


def test_offline_a_dataset_is_refused_in_one_sentence(tmp_path: Path) -> None:
    code = (
        "from lpe_eval.data.corpus import open_corpus; from lpe_eval.spec.corpus_spec import CorpusSpec; "
        "list(open_corpus(CorpusSpec.parse('hub:no-such-org/no-such-data')).documents('test'))"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    last = found.stderr.strip().splitlines()[-1]
    assert last.startswith("lpe_eval.errors.DataError: hub:no-such-org/no-such-data (split test) cannot be loaded")
