"""Tasks on public text: their own loading code on local files with the files, columns and splits of the Hub."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lpe_eval.data.corpus import Corpus, open_corpus
from lpe_eval.data.selection import choose_documents
from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.errors import DataError, SpecError, UnknownName
from lpe_eval.spec.corpus_spec import CorpusSpec
from lpe_eval.spec.task_files import task_names
from lpe_eval.spec.tasks import PerplexityTask, read_task

PUBLIC = [name for name in task_names() if name != "python-stdlib"]
ROWS = 3

LINES = [
    "", " = First = \n", "", " The game 's battle @-@ system . \n", " = \n", "",
    " = = Gameplay = = \n", "", " Two . \n", "", " = Second article = \n", "", " Three . \n", "",
]  # fmt: skip
ARTICLES = [
    " \n = First = \n \n The game 's battle @-@ system . \n = \n \n = = Gameplay = = \n \n Two . \n \n",
    " = Second article = \n \n Three . \n \n",
]


@pytest.fixture(autouse=True)
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def text(split: str, row: int) -> str:
    return f"{split} {row}: " + " ".join(f"word{(row * 7 + each * each) % 91}" for each in range(300))


def table(file: Path, columns: dict[str, list]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        pq.write_table(pa.table(columns), file)
    else:
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def configs(folder: Path, found: dict[str, dict[str, str]]) -> None:
    """The head of a dataset card, which names the files of each subset and split."""
    listed = [
        {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in files.items()]}
        for name, files in found.items()
    ]
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(listed)}\n---\n")


def like_the_hub(folder: Path, dataset: str) -> Path:
    """A small dataset with the layout of the one on the Hub."""
    folder.mkdir()
    texts = {split: [text(split, row) for row in range(ROWS)] for split in ("train", "validation", "test")}
    match dataset:
        case "Salesforce/wikitext":
            subsets = ("wikitext-2-raw-v1", "wikitext-103-raw-v1", "wikitext-103-v1")
            for subset in subsets:
                for split in texts:
                    table(folder / subset / f"{split}-00000-of-00001.parquet", {"text": LINES})
            configs(folder, {each: {split: f"{each}/{split}-*" for split in texts} for each in subsets})
        case "emozilla/pg19":
            for split, books in texts.items():
                title, date, url = ["a"] * ROWS, [1890] * ROWS, ["b"] * ROWS
                columns = {"short_book_title": title, "publication_date": date, "url": url, "text": books}
                table(folder / "data" / f"{split}-00000-of-00001-29a571947c0b5ccc.parquet", columns)
        case "ccdv/arxiv-summarization":
            for subset in ("document", "section"):
                for split, articles in texts.items():
                    shown = articles if subset == "document" else ["of sections"] * ROWS
                    columns = {"article": shown, "abstract": ["short"] * ROWS}
                    table(folder / subset / f"{split}-00000-of-00001.parquet", columns)
            names = {each: {split: f"{each}/{split}-*" for split in texts} for each in ("document", "section")}
            configs(folder, names)
        case "codeparrot/codeparrot-clean-valid":
            columns = {
                "repo_name": ["r"] * ROWS,
                "path": ["p"] * ROWS,
                "content": texts["train"],
                "license": ["mit"] * ROWS,
            }
            table(folder / "file-000000000054.json.gz", columns)
        case "allenai/c4":
            for split in ("train", "validation"):
                for part in range(2):
                    columns = {"text": [texts[split][part]], "timestamp": ["t"], "url": ["u"]}
                    table(folder / "en" / f"c4-{split}.{part:05d}-of-00002.json.gz", columns)
            table(folder / "realnewslike" / "c4-validation.00000-of-00001.json.gz", {"text": ["news"]})
            files = {"train": "en/c4-train.*.json.gz", "validation": "en/c4-validation.*.json.gz"}
            configs(folder, {"en": files, "realnewslike": {"validation": "realnewslike/*"}})
        case "Skylion007/openwebtext":
            for part in range(2):
                columns = {"text": [texts["train"][part]]}
                table(folder / "plain_text" / f"train-{part:05d}-of-00002.parquet", columns)
            configs(folder, {"plain_text": {"train": "plain_text/train-*"}})
        case _:
            raise AssertionError(dataset)
    return folder


def corpus_of(task: PerplexityTask, folder: Path) -> Corpus:
    """The task's own corpus, its revision left out, on a folder."""
    place = like_the_hub(folder, task.corpus.path or "")
    return open_corpus(task.corpus.model_copy(update={"path": str(place), "revision": None}))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_task_reads_the_column_and_the_split_that_the_hub_has(tmp_path: Path, name: str) -> None:
    task = read_task(name)
    corpus = corpus_of(task, tmp_path / "data")
    found = [document.text for document in corpus.documents(corpus.split)]
    if task.corpus.name == "wikitext":
        assert found == (["".join(ARTICLES)] if task.corpus.options else ARTICLES)
    else:
        assert corpus.split == task.corpus.split
        assert found == [text(corpus.split, row) for row in range(len(found))] and len(found) >= 2
    assert corpus.streams, "no task downloads a training split"


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_task_is_pinned_and_says_where_it_comes_from(name: str) -> None:
    task = read_task(name)
    assert len(task.corpus.revision or "") == 40
    assert "arXiv" in task.source
    longest = max(task.lengths)
    assert task.max_tokens > 4.5 * longest


@pytest.mark.parametrize("name", PUBLIC)
def test_the_windows_of_a_task_can_be_planned(tmp_path: Path, name: str) -> None:
    task = read_task(name)
    corpus, tokenizer = corpus_of(task, tmp_path / "data"), open_tokenizer("bytes")
    longest = 32
    found = choose_documents(
        corpus, corpus.split, tokenizer, longest=longest, max_tokens=task.max_tokens, seed=task.seed, pack=task.pack
    )
    assert len(found.documents) == (1 if task.pack else found.n_eligible)
    assert found.n_eligible == len(list(corpus.documents(corpus.split)))


PROTOCOLS = {
    "arxiv-dape": (True, "last 256"),
    "arxiv-kerple": (True, "nonoverlap"),
    "arxiv-yarn": (False, "sliding 256"),
    "c4": (True, "nonoverlap"),
    "github-code": (True, "nonoverlap"),
    "openwebtext": (True, "nonoverlap"),
    "pg19": (False, "sliding 256"),
    "wikitext-103": (False, "nonoverlap, sliding"),
    "wikitext-103-alibi": (True, "nonoverlap"),
    "wikitext-2": (True, "nonoverlap, sliding"),
}


def test_each_task_has_the_protocol_of_its_paper() -> None:
    found = {}
    for name in PUBLIC:
        task = read_task(name)
        told = [f"{each.name} {each.stride or each.last_k or ''}".strip() for each in task.protocols]
        found[name] = (task.pack, ", ".join(told))
    assert found == PROTOCOLS


def test_the_table_of_the_readme_lists_every_task() -> None:
    readme = (Path(__file__).parents[2] / "tasks" / "README.md").read_text(encoding="utf-8")
    assert [name for name in task_names() if f"| `{name}` |" not in readme] == []


def test_kerple_and_dape_count_320_and_20_windows() -> None:
    assert read_task("arxiv-kerple").max_tokens == 320 * 512 + 1
    assert read_task("arxiv-dape").max_tokens == 20 * 8192 + 1


def test_wikitext_without_a_place_is_the_one_of_the_hub() -> None:
    facts = open_corpus(CorpusSpec.parse("wikitext")).describe()
    assert facts["dataset"] == "Salesforce/wikitext" and facts["subset"] == "wikitext-103-raw-v1"
    assert facts["revision"] == read_task("wikitext-103").corpus.revision


def test_wikitext_knows_no_other_option() -> None:
    with pytest.raises(UnknownName, match="did you mean documents"):
        open_corpus(CorpusSpec(name="wikitext", options={"document": "split"}))
    with pytest.raises(SpecError, match="articles or split, not 'lines'"):
        open_corpus(CorpusSpec(name="wikitext", options={"documents": "lines"}))


def test_a_split_that_the_hub_does_not_have_is_one_sentence(tmp_path: Path) -> None:
    folder = like_the_hub(tmp_path / "data", "allenai/c4")
    corpus = open_corpus(CorpusSpec(name="hub", path=str(folder), subset="en", streaming=True))
    with pytest.raises(DataError, match="cannot be loaded") as caught:
        list(corpus.documents("test"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["pg19", "wikitext-2"])
def test_offline_a_task_ends_in_one_sentence_and_exit_code_two(tmp_path: Path, name: str) -> None:
    model = tmp_path / "model.py"
    model.write_text("import torch\ndef make():\n    return lambda tokens: torch.zeros(*tokens.shape, 256)\n")
    command = [sys.executable, "-m", "lpe_eval", "ppl", "--task", name, "-m", f"py:{model}:make", "-o", "out"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
    (told,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert told.startswith("error:") and "cannot be loaded" in told
