"""A row of the table of hostile inputs, and what is put in place for it."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
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
from lpe_eval.spec.released import released_encoders
from tests.support.native_checkpoints import checkpoint
from tests.support.small_ppl import TEXT, ppl

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


def furnished(folder: Path) -> Path:
    """A folder with the checkpoint `tiny`, the text `text.txt` and the run `finished`."""
    checkpoint(folder / "tiny")
    (folder / "text.txt").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert CliRunner().invoke(app, ppl(out="finished")).exit_code == 0
    shutil.rmtree(folder / "finished" / "figures")
    return folder
