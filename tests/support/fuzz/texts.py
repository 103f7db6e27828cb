"""Readers of tokenizers and of text."""

import gzip
import io
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from hypothesis import strategies as st

from lpe_eval.data.corpus import open_corpus
from lpe_eval.data.key_spans import read_key_spans
from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.spec.corpus_spec import CorpusSpec
from tests.support.fuzz.inputs import VALUES, Reader, altered, anything, in_json, put


def text_readers(home: Path) -> list[Reader]:
    vocab = {symbol: number for number, symbol in enumerate(["a", "b", "c", "ab", "Ġ", "<|endoftext|>"])}
    merges = b"#version: 0.2\na b\n"
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
             "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
             "post_processor": None, "decoder": None,
             "model": {"type": "BPE", "vocab": vocab, "merges": ["a b"]}}  # fmt: skip
    files = home / "tokenizer"
    files.mkdir()

    def encoded(name: str) -> None:
        found = open_tokenizer(name)
        made = found.encode("ab c é\n\udcff")
        assert len(made.tokens) == len(made.n_bytes)

    def pair(parts: tuple[bytes, bytes]) -> None:
        first, second = put(files / "v.json", parts[0]), put(files / "m.txt", parts[1])
        encoded(f"bpe:{first},{second}")

    def read(path: Path, column: str = "text", **fields: Any) -> None:
        name = "tokenized_bin" if path.suffix == ".bin" else "local"
        spec = CorpusSpec(name=name, path=str(path), text_column=column, **fields)
        for document in open_corpus(spec).documents("all"):
            document.name.encode()

    def ids(parts: tuple[bytes, bytes]) -> None:
        put(home / "ids.bin.json", parts[1])
        read(put(home / "ids.bin", parts[0]))

    spoken = put(home / "spoken.txt", "a é b".encode())

    def spans(file: Path, place: Path) -> None:
        corpus = open_corpus(CorpusSpec(name="local", path=str(spoken)))
        found = read_key_spans(place, corpus, "all", {"spoken.txt": "0f"})
        assert all(
            (each[:, 0] <= each[:, 1]).all() and (each[:, 1] < each[:, 2]).all() for each in found.spans.values()
        )
        file.unlink()

    slices = home / "slices"
    slices.mkdir()
    line = {"model": "m", "protocol": "sliding", "document": "spoken.txt", "digest": "0f", "bytes": [[0, 1], [2, 4]]}
    by_hand = {"document": "spoken.txt", "characters": [[0, 1], [2, 3]]}
    buffer = io.BytesIO()
    pd.DataFrame({"text": ["a", "é" * 9, ""], "n": [1, 2, 3]}).to_parquet(buffer)
    lines = b'{"text": "a"}\n\n{"text": "\xc3\xa9", "n": 1}\n'
    table = pa.table({"text": ["a", "\u00e9" * 9, None]})
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    dictionary = b"the 100\nof 50\n<unk> 3 #fairseq:overwrite\n"
    return [
        Reader("BPE in two files", st.tuples(anything(in_json(vocab)) | altered(vocab).map(in_json),
                                             st.just(merges) | anything(merges)), pair),
        Reader("BPE in one file", anything(in_json(whole)) | altered(whole).map(in_json),
               lambda content: encoded(f"bpe:{put(files / 't.json', content)}"), 2),
        Reader("characters in JSON", anything(in_json({"stoi": vocab})) | altered({"stoi": vocab}).map(in_json),
               lambda content: encoded(f"char:{put(files / 'c.json', content)}")),
        Reader("characters of a text", anything("ab c\u00e9\n\udcff".encode("utf-8", "surrogateescape")),
               lambda content: encoded(f"char:{put(files / 'c.txt', content)}")),
        Reader("fairseq dictionary", anything(dictionary),
               lambda content: encoded(f"fairseq_dict:{put(files / 'd', content)}")),
        Reader("text", anything("a é\r\n".encode()), lambda content: read(put(home / "a.txt", content))),
        Reader("JSON lines", anything(lines) | VALUES.map(in_json),
               lambda content: read(put(home / "a.jsonl", content)), 2),
        Reader("Parquet", anything(buffer.getvalue()), lambda content: read(put(home / "a.parquet", content)), 2),
        Reader("Arrow", anything(stream.getvalue()), lambda content: read(put(home / "a.arrow", content)), 2),
        Reader("JSON lines, packed", anything(gzip.compress(lines, mtime=0)),
               lambda content: read(put(home / "a.jsonl.gz", content))),
        Reader("key tokens", anything(in_json(line)) | altered(line).map(in_json) | altered(by_hand).map(in_json),
               lambda content: spans(file := put(home / "key.jsonl", content), file)),
        Reader("key tokens of the released code", anything(b"[0, 1];[2, 3]"),
               lambda content: spans(put(slices / "slice_0.txt", content), slices)),
        Reader("token ids", st.tuples(st.binary(max_size=9), anything(b'{"dtype": "uint16", "document_end": 1}') |
               altered({"dtype": "uint16", "document_end": 1}).map(in_json)), ids),
    ]  # fmt: skip
