"""A table of hostile and careless inputs: each ends in one sentence and its exit code, or simply works."""

import json
import os
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from pyarrow import parquet
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.report.folders.ppl import read_run
from lpe_eval.spec.che_checkpoint import released_encoders
from tests.support.native_checkpoints import checkpoint
from tests.support.warm import Warm, warm

TEXT = " ".join(f"word{number * number % 91}" for number in range(300))
ENDLESS = "9" * 5000
SURROGATE = "\udcff"
"""A byte of an argument that is not UTF-8, as Python shows it."""


class Row(NamedTuple):
    """One input.

    Attributes:
        name: what it is.
        argv: the arguments, in a folder with the checkpoint `tiny` and the text `text.txt`.
        code: the exit code.
        sentence: a part of what is said.
        before: what is put there first.
    """

    name: str
    argv: list[str]
    code: int
    sentence: str
    before: Callable[[], object] = lambda: None


def ppl(*more: str, m: str = "tiny", data: str = "text.txt", lengths: str = "32", out: str = "out") -> list[str]:
    return ["ppl", "-m", m, "--data", data, "--lengths", lengths, "--max-tokens", "300", "-q", "--out", out, *more]


def train(*more: str) -> list[str]:
    small = ["--train-length", "16", "--batch-tokens", "32", "--steps", "2", "--width", "16", "--layers", "1"]
    return ["train", "--encoding", "alibi", "--corpus", "corpus", *small, "--heads", "2", "-q", "--out", "new", *more]


def put(path: str, content: str | bytes) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))


def corpus() -> None:
    for split in ("train", "valid"):
        put(f"corpus/{split}.txt", TEXT)


def table(path: str, columns: dict[str, list]) -> None:
    with Path(path).open("wb") as file:
        parquet.write_table(pa.table(columns), file)


def ids(dtype: str, beside: str, values: list[int]) -> None:
    put("ids.bin", np.array(values, dtype=dtype).tobytes())
    put("ids.bin.json", beside)


def weight(value: float, which: int = 1) -> None:
    weights = load_file("tiny/model.safetensors")
    name = sorted(weights)[which]
    weights[name] = weights[name].clone()
    weights[name].view(-1)[0] = value
    save_file(weights, "tiny/model.safetensors")


def stored_as(dtype: torch.dtype) -> None:
    save_file({name: each.to(dtype) for name, each in load_file("tiny/model.safetensors").items()},
              "tiny/model.safetensors")  # fmt: skip


def config(text: str) -> None:
    put("tiny/config.yaml", text)


def earlier(name: str, content: str | bytes) -> None:
    """A finished run in `out` with one damaged file."""
    shutil.copytree("finished", "out")
    put(f"out/{name}", content)


def damaged_cell(**changes: object) -> None:
    shutil.copytree("finished", "out")
    victim = min(Path("out/cells").glob("*.json"))
    victim.write_text(json.dumps({**json.loads(victim.read_text()), **changes}))


def pipe(path: str) -> None:
    Path(path).unlink(missing_ok=True)
    os.mkfifo(path)


def loop(path: str) -> None:
    Path(path).symlink_to(path)


def neox(yml: str) -> None:
    put("neox/global_step1/layer_00-model_00-model_states.pt", b"junk")
    put("neox/configs/a.yml", yml)


def che(*more: str) -> list[str]:
    few = ["--tasks", "even_pairs", "--lengths", "10", "--samples", "4", "--device", "cpu"]
    return ["che", "-m", "rope", *few, "-q", "--out", "out", *more]


def encoders(
    config: str | bytes | None = None,
    weights: Callable[[bytes], bytes] = lambda content: content,
    tasks: Sequence[tuple[Any, ...]] = (),
    **changes: object,
) -> None:
    """A released folder of encoders as `rope`, changed: its config, or what that says of even_pairs."""
    source = released_encoders()["rope"]
    put("rope/even_pairs.safetensors", weights((source / "even_pairs.safetensors").read_bytes()))
    plain = yaml.safe_load((source / "config.yaml").read_text())
    plain["tasks"] = {"even_pairs": plain["tasks"]["even_pairs"]}
    for *place, last, value in tasks:
        inner = plain["tasks"]["even_pairs"]
        for name in place:
            inner = inner[name]
        inner[last] = value
    put("rope/config.yaml", yaml.safe_dump({**plain, **changes}) if config is None else config)


def spoilt() -> None:
    """Makes a weight of even_pairs NaN."""
    weights = load_file("rope/even_pairs.safetensors")
    first = min(weights)
    weights[first] = torch.full_like(weights[first], float("nan"))
    save_file(weights, "rope/even_pairs.safetensors")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Nine lines that stand for 9^9 words."""

TASK = "name: mine\nversion: 1\ntitle: t\ncorpus: text.txt\nprotocols: [{name: last}]\nlengths: [8]\nmax_tokens: 99\n"
RUN = "kind: ppl\nmodels: [tiny]\ncorpus: text.txt\nprotocols: [{name: last}]\nlengths: [8]\nmax_tokens: 99\n"
MODEL = "{encoding: alibi, width: 16, layers: 2, heads: 2, mlp_width: 32, train_length: 32}"

ROWS = [
    # The text.
    Row("an empty file", ppl(data="a.txt"), 2, "a.txt is empty; give a file with text", lambda: put("a.txt", "")),
    Row("a text of one token", ppl(data="a.txt"), 2, "the longest of 1 has 1: lower --lengths, or use --pack",
        lambda: put("a.txt", "a")),
    Row("a text of one token at length one", ppl(data="a.txt", lengths="1"), 2, "has the 2 tokens that length 1 needs",
        lambda: put("a.txt", "a")),
    Row("a binary file", ppl(data="a.txt"), 2, "looks like binary data, not text", lambda: put("a.txt", bytes(999))),
    Row("Latin-1", ppl(data="a.txt"), 2, "a.txt is not UTF-8 (byte 0); convert it to UTF-8",
        lambda: put("a.txt", "é".encode("latin-1") * 99)),
    Row("UTF-16", ppl(data="a.txt"), 2, "a.txt is UTF-16, not UTF-8; convert it",
        lambda: put("a.txt", TEXT.encode("utf-16"))),
    Row("UTF-8 with a byte order mark", ppl(data="a.txt"), 0, "corpus a.txt",
        lambda: put("a.txt", TEXT.encode("utf-8-sig"))),
    Row("a length beyond the longest document", ppl(lengths="32,100000"), 2, "lower --lengths, or use --pack"),
    Row("JSON nested too deep", ppl(data="a.jsonl"), 2, "line 1, is not JSON: it is nested too deep",
        lambda: put("a.jsonl", "[" * 100_000)),
    Row("JSON with a number of 5000 digits", ppl(data="a.jsonl"), 2, "line 1, is not JSON",
        lambda: put("a.jsonl", f'{{"text": {ENDLESS}}}')),
    Row("JSON lines that are blank", ppl(data="a.jsonl"), 2, "holds no document", lambda: put("a.jsonl", "\n \n")),
    Row("a row whose text is null", ppl(data="a.jsonl"), 2, "holds no document with text (1 rows",
        lambda: put("a.jsonl", '{"text": null}')),
    Row("a Parquet file cut short", ppl(data="a.parquet"), 2, "a.parquet is no readable Parquet file",
        lambda: put("a.parquet", b"PAR1" * 9)),
    Row("a Parquet file without rows", ppl(data="a.parquet"), 2, "holds no document",
        lambda: table("a.parquet", {"text": []})),
    Row("a Parquet file whose name is a pattern", ppl(data="a[1]*.parquet"), 0, "corpus a[1]*.parquet",
        lambda: table("a[1]*.parquet", {"text": [TEXT]})),
    Row("a Parquet file whose name is an address", ppl(data="a::b.parquet"), 0, "corpus a::b.parquet",
        lambda: table("a::b.parquet", {"text": [TEXT]})),
    Row("token ids beyond the vocabulary", ppl(data="ids.bin"), 2, "ids from 60000 to 60000, but the tokenizer bytes",
        lambda: ids("uint16", '{"dtype": "uint16"}', [60000] * 200)),
    Row("half a token id", ppl(data="ids.bin"), 2, "no whole number of uint16 ids",
        lambda: (ids("uint16", '{"dtype": "uint16"}', []), put("ids.bin", b"abc"))),
    Row("ids whose description is nested too deep", ppl(data="ids.bin"), 2, "nested too deep",
        lambda: ids("uint16", "[" * 100_000, [1] * 200)),
    Row("an end of document that no id can be", ppl(data="ids.bin"), 0, "corpus ids.bin",
        lambda: ids("uint16", f'{{"dtype": "uint16", "document_end": {2**70}}}', [1] * 200)),
    Row("a named pipe as text", ppl(data="a.txt"), 2, "holds no document", lambda: pipe("a.txt")),
    Row("a named pipe as token ids", ppl(data="a.bin"), 2, "there is no file a.bin", lambda: pipe("a.bin")),
    Row("a device as text", ppl(data="/dev/zero"), 2, "holds no document"),
    Row("a file that fails while it is read", ppl(data="a.txt"), 2, "a.txt cannot be read: Input/output error",
        lambda: Path("a.txt").symlink_to("/proc/self/mem")),
    Row("a link to itself as text", ppl(data="a.txt"), 2, "there is no file or folder a.txt", lambda: loop("a.txt")),
    Row("a folder that holds a link to itself", ppl(data="folder"), 0, "in 1 documents",
        lambda: (put("folder/a.txt", TEXT), Path("folder/again").symlink_to("../folder"))),
    Row("a path with blanks and an emoji", ppl(data="my text/😀 a.txt", out="my run 😀"), 0, "corpus my text/😀 a.txt",
        lambda: put("my text/😀 a.txt", TEXT)),
    Row("a file name that is not UTF-8", ppl(data="folder"), 0, "in 1 documents",
        lambda: put(f"folder/{SURROGATE}.txt", TEXT)),
    Row("a text named in bytes that are not UTF-8", ppl(data=f"{SURROGATE}.txt"), 0, "corpus \\udcff.txt",
        lambda: put(f"{SURROGATE}.txt", TEXT)),
    Row("the home of someone unknown", ppl(data="~nobody-at-all/a.txt"), 2, "is no path: Could not determine home"),
    Row("a path of 5000 characters", ppl(data="x" * 5000 + ".txt"), 2, "is no path: File name too long"),
    Row("an empty text", ppl(data=""), 2, "the corpus is empty; write python-stdlib"),
    # Numbers.
    Row("a length of 5000 digits", ppl(lengths=ENDLESS), 2, "is no length"),
    Row("a sweep of 5000 digits", ppl(lengths=f"1:{ENDLESS}:x2"), 2, "is no length"),
    Row("a length of 2^63", ppl(lengths=str(2**63)), 2, "is no length"),
    Row("a length as 1e3", ppl(lengths="1e3"), 2, "'1e3' is no length; write 512,8192"),
    Row("a length of zero in full-width digits", ppl(lengths="０"), 2, "a length must be between 1 and"),
    Row("a length in full-width digits", ppl(lengths="３２"), 0, "tiny alibi 32"),
    Row("lengths not sorted and repeated", ppl(lengths="64,32,64,32"), 0, "nonoverlap nonoverlap sliding sliding"),
    Row("a flag given twice counts once, the last time", ppl("--lengths", "64"), 0,
        "model encoding train length 64 64"),
    Row("a seed beyond 64 bits", ppl("--seed", str(2**70)), 2, "ppl, seed: Input should be less than or equal to"),
    Row("a batch of 10^30 windows", ppl("-b", str(10**30)), 2, "the batch size must be at most 16777216"),
    Row("a budget of 10^30 tokens", ppl("--max-tokens", str(10**30)), 0, "tiny alibi 32"),
    Row("a budget that is not a number", ppl("--max-tokens", "nan"), 2, "Invalid value for '--max-tokens'"),
    # The machine.
    Row("a GPU that is not there", ppl("--device", "cuda:99"), 2, "--device cuda:99: no such device"),
    Row("a device of shapes alone", ppl("--device", "meta"), 2, "--device meta: no such device"),
    Row("a device without a name", ppl("--device", ""), 2, "no such device"),
    Row("a dtype that no table knows", ppl("--dtype", "float64"), 2, "ppl, dtype: Input should be 'auto', 'float32'"),
    Row("an attention path that cannot serve", ppl("--attention", "sdpa"), 4, "cannot compute alibi on cpu"),
    Row("an attention path that does not exist", ppl("--attention", "flsh"), 2, "named 'flsh'; did you mean flex"),
    # Where results go.
    Row("results into a file", ppl(out="text.txt"), 1, "cannot write to text.txt: File exists; choose another --out"),
    Row("results into a folder of a checkpoint", ppl(out="tiny"), 1, "tiny holds files that are no run (config.yaml)"),
    Row("results into a link to itself", ppl(out="a"), 1, "cannot write to a: File exists", lambda: loop("a")),
    Row("results into a place that nobody can write to", ppl(out="/proc/self/a"), 1, "cannot write to /proc/self/a"),
    Row("results into a path of 5000 characters", ppl(out="y" * 5000), 1, "File name too long; choose another --out"),
    Row("results into a name that is not UTF-8", ppl(out=SURROGATE), 0, "rows: \\udcff/rows.csv"),
    Row("results into the current folder", ppl(out=""), 1, ". holds files that are no run"),
    # Earlier results.
    Row("an earlier run's marker that is damaged", ppl(), 1, "out/run.json is damaged",
        lambda: earlier("run.json", "[" * 100_000)),
    Row("an earlier run's marker without a number", ppl(), 1, "out/run.json is damaged",
        lambda: earlier("run.json", '{"run": "a", "schema": Infinity}')),
    Row("an earlier cell nested too deep is measured again", ppl(), 0, "tiny alibi 32",
        lambda: (shutil.copytree("finished", "out"), min(Path("out/cells").glob("*")).write_text("[" * 100_000))),
    Row("an earlier cell with an odd key is measured again", ppl(), 0, "tiny alibi 32",
        lambda: damaged_cell(key=[["tiny"], "nonoverlap", 32, 32])),
    Row("an earlier cell with a sum beyond 64 bits is measured again", ppl(), 0, "tiny alibi 32",
        lambda: damaged_cell(blocks=[["a", "b", 10**30, 1.0, 1, 1, 1]])),
    Row("an earlier cell with an odd cost is measured again", ppl(), 0, "tiny alibi 32",
        lambda: damaged_cell(cost=5)),
    Row("a table with a field of 200000 characters", ["plot", "out"], 1, "out/rows.csv is damaged (field larger",
        lambda: earlier("rows.csv", "a" * 200_000)),
    Row("a table with zeros in it", ["plot", "out"], 1, "does not have the columns",
        lambda: earlier("rows.csv", b"\0")),
    Row("sums that are no Parquet", ["plot", "out"], 1, "out/by_document.parquet is damaged",
        lambda: earlier("by_document.parquet", b"PAR1junkPAR1")),
    Row("provenance nested too deep", ["plot", "out"], 1, "out/provenance.json is not JSON: it is nested too deep",
        lambda: earlier("provenance.json", "[" * 100_000)),
    Row("provenance of another shape", ["plot", "out"], 1, "out/provenance.json is damaged",
        lambda: earlier("provenance.json", '{"models": [1]}')),
    Row("a stored spec that is no YAML", ["plot", "out"], 1, "out/spec.yaml is not YAML",
        lambda: earlier("spec.yaml", "!!int ''")),
    Row("a figure into a file", ["plot", "out", "--out", "text.txt"], 1, "cannot write text.txt/perplexity.png",
        lambda: earlier(".lock", "")),
    # Files that say what to run.
    Row("a YAML bomb as a spec", ["run", "a.yaml"], 2, "uses a YAML alias (*name); write the value out",
        lambda: put("a.yaml", BOMB)),
    Row("YAML nested 20000 deep", ["run", "a.yaml"], 2, "a.yaml is nested more than 64 levels deep",
        lambda: put("a.yaml", "a: " + "[" * 20_000)),
    Row("YAML of a megabyte", ["run", "a.yaml"], 2, "too long for a configuration",
        lambda: put("a.yaml", "# and so on\n" * 100_000)),
    Row("a YAML number without digits", ["run", "a.yaml"], 2, "a value does not fit its tag",
        lambda: put("a.yaml", "kind: !!int ''")),
    Row("a YAML date that is none", ["run", "a.yaml"], 2, "is not YAML: month must be in 1..12",
        lambda: put("a.yaml", "kind: 2020-99-99")),
    Row("a key that stands twice", ["run", "a.yaml"], 2, "gives 'lengths' twice; leave one out",
        lambda: put("a.yaml", RUN + "lengths: [16]\n")),
    Row("a key that is no name", ["run", "a.yaml"], 2, "a.yaml has the key 1, which is no name",
        lambda: put("a.yaml", RUN + "1: 2\n")),
    Row("a spec in UTF-16", ["run", "a.yaml"], 2, "it is not UTF-8 (byte 0)",
        lambda: put("a.yaml", RUN.encode("utf-16"))),
    Row("a spec full of zeros", ["run", "a.yaml"], 2, "is not YAML", lambda: put("a.yaml", bytes(9))),
    Row("a named pipe as a spec", ["run", "a.yaml"], 2, "it is no regular file; save its content",
        lambda: pipe("a.yaml")),
    Row("a device as a spec", ["run", "/dev/zero"], 2, "it is no regular file"),
    Row("a folder as a spec", ["run", "tiny"], 2, "tiny cannot be read: Is a directory"),
    Row("a misspelt key of the text", ["run", "a.yaml"], 2, "key of a.yaml, corpus named 'pth'; did you mean path",
        lambda: put("a.yaml", RUN.replace("corpus: text.txt", "corpus: {name: local, pth: text.txt}"))),
    Row("a misspelt key of a protocol", ["run", "a.yaml"], 2, "protocols.0 named 'lastk'; did you mean last_k",
        lambda: put("a.yaml", RUN.replace("{name: last}", "{name: last, lastk: 3}"))),
    Row("a task without lengths", ppl("--task", "mine.yaml"), 2,
        "mine.yaml, lengths: Tuple should have at least 1 item",
        lambda: put("mine.yaml", TASK.replace("[8]", "[]"))),
    Row("a task whose length is not a number", ppl("--task", "mine.yaml"), 2,
        "lengths.0: Input should be a finite number",
        lambda: put("mine.yaml", TASK.replace("[8]", "[.nan]"))),
    Row("a task with a zero in its path", ppl("--task", "a\0b.yaml"), 2, "embedded null byte"),
    # Checkpoints.
    Row("a checkpoint of no name", ppl(m=""), 2, ". is not a checkpoint of any known format"),
    Row("a checkpoint with a zero in its path", ppl(m="a\0b"), 2, "no released checkpoint (and no folder) named"),
    Row("two models of one name", ppl("-m", "./tiny"), 2,
        "two models are called 'tiny'; tell them apart with -m NAME=./tiny"),
    Row("a name that is not UTF-8", ppl(m=f"{SURROGATE}=tiny"), 2, "has bytes that are not UTF-8"),
    Row("a name that is an emoji", ppl(m="🐍=tiny"), 0, "🐍 alibi"),
    Row("a name in the config that has no UTF-8 form", ppl(), 0, "\\ud800 alibi",
        lambda: config(f'schema: 1\nname: "\\ud800"\nmodel: {MODEL}')),
    Row("a link to itself as a checkpoint", ppl(m="native:a"), 2, "a is not a native checkpoint", lambda: loop("a")),
    Row("a link to itself as a destination", ["convert", "tiny", "a"], 2, "is a file or a broken link",
        lambda: loop("a")),
    Row("a text as a checkpoint", ppl(m="text.txt"), 2, "text.txt is not a checkpoint of any known format"),
    Row("a YAML bomb as a config", ppl(), 2, "uses a YAML alias",
        lambda: config(f"{BOMB}schema: 1\nname: a\nmodel: {{encoding: {{name: alibi, x: *i}}}}")),
    Row("a config nested too deep", ppl(), 2, "nested more than 64 levels", lambda: config("a: " + "[" * 20_000)),
    Row("an empty config", ppl(), 2, "tiny/config.yaml must hold a mapping, not NoneType", lambda: config("")),
    Row("a config of a newer schema", ppl(), 2, "newer than this program knows; upgrade lpe-eval",
        lambda: config(f"schema: 99\nname: a\nmodel: {MODEL}")),
    Row("a config for a model of 10^15 weights", ppl(), 4, "the config needs at least",
        lambda: config("schema: 1\nname: a\nmodel: {encoding: alibi, vocab_size: 1000000000000}")),
    Row("a config for a model of 10^12 layers", ppl(), 4, "the config needs at least",
        lambda: config("schema: 1\nname: a\nmodel: {encoding: alibi, width: 1, heads: 1, layers: 1000000000000}")),
    Row("an encoding larger than the memory", ppl(), 4, "does not fit into memory",
        lambda: config("schema: 1\nname: a\nmodel: {encoding: {name: learned, length: 100000000000000}, width: 16, "
                       "layers: 2, heads: 2, mlp_width: 32}")),
    Row("a config that names no encoding", ppl(), 2, "tiny/config.yaml: '(((' does not name an encoding",
        lambda: config("schema: 1\nname: a\nmodel: {encoding: '((('}")),
    Row("weights cut short", ppl(), 4, "is not a readable safetensors file",
        lambda: put("tiny/model.safetensors", Path("tiny/model.safetensors").read_bytes()[:500])),
    Row("weights of no bytes", ppl(), 4, "is not a readable safetensors file",
        lambda: put("tiny/model.safetensors", "")),
    Row("weights whose header says it has 2^62 bytes", ppl(), 4, "is not a readable safetensors file",
        lambda: put("tiny/model.safetensors", struct.pack("<Q", 2**62) + b"{}")),
    Row("weights that are whole numbers", ppl(), 4, "holds torch.int64, not torch.float32",
        lambda: stored_as(torch.int64)),
    Row("weights that are complex numbers", ppl(), 4, "holds torch.complex64", lambda: stored_as(torch.complex64)),
    Row("a weight that is not a number", ppl(), 4, "scored targets have a loss that is not finite",
        lambda: weight(float("nan"))),
    Row("a weight that is infinite", ppl(), 4, "scored targets have a loss that is not finite",
        lambda: weight(float("inf"))),
    Row("a weight beyond float16", ppl("--dtype", "float16"), 4, "scored targets have a loss that is not finite",
        lambda: weight(1e6)),
    Row("a text with more symbols than the model", ppl(m="small"), 4, "and the model has 64 symbols",
        lambda: checkpoint(Path("small"), vocab_size=64)),
    Row("a first token that the model does not have", ppl("--bos", "always", m="small"), 4,
        "the text holds the token 256 and the model has 256 symbols",
        lambda: checkpoint(Path("small"), vocab_size=256)),
    Row("a vocabulary with a hole of four thousand million", ppl("--tokenizer", "bpe:v.json,m.txt"), 2,
        "v.json is not a vocabulary", lambda: (put("v.json", '{"a": 4000000000}'), put("m.txt", ""))),
    Row("a tokenizer that its library cannot read", ppl("--tokenizer", "bpe:t.json"), 2,
        "cannot be loaded: data did not",
        lambda: put("t.json", '{"model": 3}')),
    Row("a named pipe as a dictionary", ppl("--tokenizer", "fairseq_dict:a"), 2, "it is no regular file",
        lambda: pipe("a")),
    Row("settings of an address that are no YAML", ppl(m="neox:tiny?vocab=2020-99-99"), 2,
        "the value of vocab is not YAML: month must be in 1..12"),
    Row("a GPT-NeoX config nested too deep", ppl(m="neox"), 2,
        "a.yml cannot be read as YAML: it is nested more than 64",
        lambda: neox("a: " + "[" * 20_000)),
    Row("a Hugging Face config nested too deep", ppl(m="a"), 2, "a is not a checkpoint of any known format",
        lambda: put("a/config.json", "[" * 100_000)),
    Row("a pickle that is no checkpoint", ppl("--tokenizer", "bytes", m="fairseq:a.pt"), 4,
        "a.pt is damaged or no file of torch.save",
        lambda: put("a.pt", b"\x80\x02]q\x00.")),
    Row("code that ends the program", ppl(m="py:a.py:make"), 2, "py:a.py:make cannot be imported: SystemExit: 0",
        lambda: put("a.py", "import sys\nsys.exit(0)\n")),
    Row("code with an exception of its own", ppl(m="py:a.py:make"), 2, "py:a.py:make fails: Own: why (a.py, line 4)",
        lambda: put("a.py", "class Own(Exception):\n    pass\ndef make():\n    raise Own('why')\n")),
    Row("a native form into a path of 5000 characters", ["convert", "tiny", "y" * 5000], 1, "File name too long"),
    Row("a run of a path of 5000 characters", ["show", "y" * 5000], 1, "File name too long"),
    Row("figures of a path of 5000 characters", ["plot", "y" * 5000], 1, "File name too long"),
    Row("a checkpoint of a path of 5000 characters", ["inspect", "y" * 5000], 2, "cannot be read: File name too long"),
    Row("a dictionary of a path of 5000 characters", ppl("--tokenizer", "bpe:" + "y" * 5000), 2, "File name too long"),
    # Training and speed.
    Row("an encoding nested 3000 deep", ["train", "--encoding", "dape(" * 3000 + "alibi" + ")" * 3000], 2,
        "wraps 3000 times; write at most 8"),
    Row("an option that is no YAML", ["train", "--encoding", "dape(alibi)", "--option", "hidden=["], 2,
        "--option: the value of hidden is not YAML"),
    Row("a model of 10^12 layers", train("--layers", str(10**12)), 2,
        "weights cannot be held; lower its width", corpus),
    Row("a width of 2^64", train("--width", str(2**64)), 2, "weights cannot be held; lower its width", corpus),
    Row("a learning rate that is not a number", train("--learning-rate", "nan"), 2, "train, learning_rate", corpus),
    Row("an infinite learning rate", train("--learning-rate", "inf"), 2,
        "learning_rate: Input should be a finite number",
        corpus),
    Row("a learning rate that destroys the model", train("--learning-rate", "1e30"), 1, "diverged at step", corpus),
    Row("a seed beyond 64 bits in a training", train("--seed", str(2**62)), 2, "train, seed", corpus),
    Row("a training text of one token", train(), 2, "has 2 tokens, not the 17 that length 16 needs",
        lambda: (put("corpus/train.txt", "a"), put("corpus/valid.txt", "b"))),
    Row("a training into another one's checkpoint", train("--out", "tiny"), 1,
        "tiny holds files that are no run (config.yaml)", corpus),
    Row("a training whose spec was damaged", train(), 1, "new holds another run, of another spec",
        lambda: (corpus(), put("new/spec.yaml", b"\xff\xfe"))),
    Row("a speed measurement of 10^9 layers", ["speed", "--encoding", "alibi", "--layers", str(10**9)], 2,
        "weights cannot be held"),
    Row("a speed measurement whose spec was damaged", ["speed", "--encoding", "alibi", "--lengths", "8", "--out",
        "new"],
        1, "new holds another run, of another spec", lambda: put("new/spec.yaml", b"\xff")),
    # Algorithmic problems.
    Row("encoders of a path of 5000 characters", ["che", "-m", "y" * 5000], 1, "File name too long"),
    Row("encoders whose config is empty", che(), 2, "rope/config.yaml is no config of encoders",
        lambda: encoders(config="")),
    Row("encoders whose config is a YAML bomb", che(), 2, "uses a YAML alias", lambda: encoders(config=BOMB)),
    Row("encoders whose config is binary", che(), 2, "rope/config.yaml", lambda: encoders(config=b"\xff\x00")),
    Row("encoders of another kind", che(), 2, "is no config of encoders: it has no kind: che",
        lambda: encoders(kind="ppl")),
    Row("encoders of a newer schema", che(), 2, "has schema 99, this program knows 1", lambda: encoders(schema=99)),
    Row("encoders with a key of another program", che(), 2, "rope/config.yaml: mine: Extra inputs",
        lambda: encoders(mine=1)),
    Row("encoders of an encoding that does not exist", che(), 2, "did you mean rope", lambda: encoders(
        tasks=[("model", "encoding", "name", "ropee")])),
    Row("an encoder whose weights are gone", che(), 4, "even_pairs.safetensors is not a readable safetensors file",
        lambda: (encoders(), Path("rope/even_pairs.safetensors").unlink())),
    Row("an encoder whose weights are cut", che(), 4, "is not a readable safetensors file",
        lambda: encoders(weights=lambda content: content[:100])),
    Row("an encoder of another shape", che(), 4, "shape", lambda: encoders(tasks=[("model", "width", 32)])),
    Row("an encoder with weights that are not numbers", che(), 4, "holds numbers that are not finite",
        lambda: (encoders(), spoilt())),
    Row("a problem of another version", che(), 0, "even_pairs", lambda: encoders(tasks=[("task_version", 7)])),
    Row("a problem that no encoder has", che("--tasks", "even_pears"), 2, "did you mean even_pairs", encoders),
    Row("strings of length 0", che("--lengths", "0"), 2, "length", encoders),
    Row("strings of 10^9 tokens", che("--lengths", str(10**9)), 2, "length", encoders),
    Row("no strings", che("--samples", "0"), 2, "samples", encoders),
    Row("a single string", che("--samples", "1"), 0, "even_pairs", encoders),
    Row("answers into a folder with other files", che("--out", "tiny"), 1, "holds files that are no run",
        encoders),
    Row("answers into a run of perplexity", che("--out", "finished"), 1, "finished holds", encoders),
    Row("a protocol of problems that is no YAML", ["che", "--train", "--encoding", "rope", "--protocol", "a.yaml"], 2,
        "a.yaml", lambda: put("a.yaml", "steps: [")),
    Row("a baseline of problems that is none", che("--baseline", "nobody"), 2, "no baseline named 'nobody'",
        encoders),
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    checkpoint(folder / "tiny")
    (folder / "text.txt").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert CliRunner().invoke(app, ppl(out="finished")).exit_code == 0
    shutil.rmtree(folder / "finished" / "figures")
    return folder


def said(output: str) -> str:
    return " ".join(output.replace("│", " ").replace("─", " ").split())


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_hostile_or_careless_input(row: Row, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    row.before()
    began = time.monotonic()
    result = CliRunner().invoke(app, row.argv)
    assert result.exit_code == row.code, result.output + repr(result.exception)
    assert row.sentence in said(result.output)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert time.monotonic() - began < 60
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) <= 1
    if errors:
        assert result.stderr.rstrip().splitlines()[-1] == errors[0], "the sentence is one line, and the last"


def test_the_table_has_no_two_rows_alike_and_is_long_enough():
    assert len({row.name for row in ROWS}) == len(ROWS) >= 60


def test_models_that_can_be_opened_are_measured_beside_one_that_cannot(place: Path, tmp_path: Path, monkeypatch):
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    shutil.copytree("tiny", "broken")
    put("broken/model.safetensors", b"")
    result = CliRunner().invoke(app, ppl("-m", "other=broken", "-m", "last=tiny"))
    assert result.exit_code == 4, result.output
    rows = read_run(tmp_path / "out").rows
    assert {name: set(found.status) for name, found in rows.groupby("model")} == {
        "tiny": {"ok"}, "other": {"failed"}, "last": {"ok"},
    }  # fmt: skip
    again = CliRunner().invoke(app, ppl("-m", "other=broken", "-m", "last=tiny"))
    assert "already holds 4 of 6 cells" not in again.output, "quiet means quiet"
    assert again.exit_code == 4
    shutil.copy("tiny/model.safetensors", "broken/model.safetensors")
    mended = CliRunner().invoke(app, ppl("-m", "other=broken", "-m", "last=tiny", out="mended"))
    assert mended.exit_code == 0, mended.output


def test_a_yaml_bomb_costs_neither_time_nor_memory(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    put("a.yaml", BOMB)
    tracemalloc.start()
    began = time.monotonic()
    assert CliRunner().invoke(app, ["run", "a.yaml"]).exit_code == 2
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() - began < 10
    assert peak < 2**27


@pytest.fixture(scope="module")
def lpe_eval(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with warm(tmp_path_factory.mktemp("warm")) as helper:
        yield helper


@pytest.fixture
def there(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def aloud(argv: list[str]) -> list[str]:
    return [each for each in argv if each != "-q"]


def test_a_full_disk_ends_in_one_sentence_and_the_same_command_goes_on(there: Path, lpe_eval: Warm):
    # A figure has some 40 kilobytes and a cell a few, so the cells fit and the figures do not.
    full = lpe_eval.run(ppl(), there, largest_file=16384)
    assert full.code == 1
    (sentence,) = full.stderr.splitlines()
    assert sentence.startswith("error: cannot write ") and "File too large" in sentence
    assert len(list((there / "out" / "cells").iterdir())) == 2
    assert not list((there / "out").rglob("*.partial"))
    rest = lpe_eval.run(aloud(ppl()), there)
    assert rest.code == 0
    assert "out already holds 2 of 2 cells; they are not measured again" in rest.stderr
    assert (there / "out" / "rows.csv").read_bytes() == (there / "finished" / "rows.csv").read_bytes()


def test_a_training_on_a_full_disk_ends_in_one_sentence(there: Path, lpe_eval: Warm):
    corpus()
    full = lpe_eval.run(train(), there, largest_file=8192)
    assert full.code == 1
    (sentence,) = full.stderr.splitlines()
    assert sentence.startswith("error: cannot write a checkpoint to new: ")
    assert not list((there / "new").rglob("*.partial"))
    assert lpe_eval.run(train(), there).code == 0
    assert (there / "new" / "model.safetensors").exists()


def test_a_full_place_behind_the_terminal_is_one_sentence(there: Path, lpe_eval: Warm):
    done = lpe_eval.run(["list", "encodings"], there, stdout="/dev/full")
    assert done.code == 1
    assert done.stderr == "error: cannot write to the terminal or to where it is sent: No space left on device\n"


def test_a_terminal_that_knows_only_ascii_shows_escapes(there: Path, lpe_eval: Warm):
    done = lpe_eval.run(ppl(m="🐍=tiny"), there, encoding="ascii")
    assert done.code == 0, done.stderr
    assert "\\U0001f40d" in done.stdout
    assert read_run(there / "out").rows.model[0] == "🐍"


def test_a_closed_terminal_is_no_obstacle(there: Path, lpe_eval: Warm):
    assert lpe_eval.run(aloud(ppl()), there, closed=True).code == 0
    assert len(read_run(there / "out").rows) == 6


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (ppl(data="hub:some/text"), "error: hub:some/text (split test) cannot be loaded"),
        (ppl(m="hf:some/model"), "error: hf:some/model is neither a local folder, nor in the cache"),
        (ppl("--tokenizer", "hf:some/model"), "error: the tokenizer hf:some/model cannot be loaded"),
    ],
)
def test_a_name_on_the_hub_without_a_network_is_one_sentence(
    there: Path, lpe_eval: Warm, argv: list[str], sentence: str
):
    done = lpe_eval.run(argv, there)
    assert done.code == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(sentence)


def test_no_place_for_caches_and_temporary_files_is_no_obstacle(there: Path):
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "HF_HOME", "MPLCONFIGDIR"), "/proc/nowhere")
    table("a.parquet", {"text": [TEXT]})
    code = f"import sys; from lpe_eval.cli import main; sys.argv[1:] = {ppl(data='a.parquet')!r}; main()"
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=240,
        env={**os.environ, "PYTHONPATH": root, **nowhere},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
