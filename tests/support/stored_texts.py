"""Documents of every kind, and which of them a budget takes."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from lpe_eval.data.corpora.local import Local
from lpe_eval.data.selection import choose_documents
from lpe_eval.data.tokenizers.bytes import Bytes
from lpe_eval.spec.corpus_spec import CorpusSpec
from tests.support.small_ppl import TEXT


def write_texts(folder: Path) -> None:
    """Documents of every kind, in splits and not."""
    texts = [f"{number} {TEXT}" for number in range(6)]
    (folder / "test").mkdir(parents=True)
    (folder / "train").mkdir()
    (folder / "test" / "a.txt").write_text(texts[0])
    (folder / "test" / "empty.txt").write_text("")
    (folder / "test" / "._a.txt").write_text("what macOS leaves")
    (folder / "test" / "long.txt").write_text(TEXT * (2 + (1 << 22) // len(TEXT)))
    (folder / "test" / "b.txt.gz").write_bytes(gzip.compress(texts[1].encode()))
    (folder / "test" / "c.jsonl").write_text("".join(json.dumps({"text": each}) + "\n" for each in texts[2:4]) + "\n")
    (folder / "test" / "d.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": texts[4]}).encode()))
    table = pyarrow.table({"text": [texts[5], None, TEXT * 2]})
    parquet.write_table(table, folder / "test" / "e.parquet", row_group_size=1)
    arrow = pyarrow.OSFile(str(folder / "test" / "f.arrow"), "wb")
    with arrow as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    with pyarrow.output_stream(str(folder / "test" / "g.txt.zst"), compression="zstd") as file:
        file.write(TEXT[::-1].encode())
    (folder / "train" / "x.txt").write_text("what a model learned from " * 90)


def chosen(path: str, **fields: Any) -> tuple[list[tuple[str, str, int]], str]:
    """Documents that a budget takes, with their digests, and the fingerprint of the whole."""
    corpus = Local(CorpusSpec(name="local", path=path, **fields))
    found = choose_documents(corpus, corpus.split, Bytes.open(""), longest=64, max_tokens=3000, seed=0)
    return [(each.name, each.digest, len(each.tokens)) for each in found.documents], found.fingerprint
