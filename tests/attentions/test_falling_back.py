"""A path that cannot be compiled or launched gives way to an exact one, once, and the result says so."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lpe_eval.errors import LengthError
from lpe_eval.model import falling_back
from lpe_eval.model.attention import AttentionPath, PathError
from lpe_eval.model.attentions.blocked import Blocked
from lpe_eval.model.attentions.checkpointed import Checkpointed
from lpe_eval.model.falling_back import attended, taken
from lpe_eval.model.mask import Mask
from tests.support.attending import built, features_of

ROOT = Path(__file__).parents[2]
ALL_PAST = Mask()
FLEX_HERE = '''
from lpe_eval.model.attentions.flex import Flex


class FlexHere(Flex):
    """FlexAttention by the C++ compiler of a CPU."""

    preference = 90

    @classmethod
    def serves(cls, encoding, device):
        uses = encoding.capabilities
        return device.type == "cpu" and uses.offset_bias and not (uses.general_bias or uses.adjusts)
'''


class Breaking(AttentionPath):
    """Counts its calls, and raises what it is told to at the sizes it is told."""

    error: Exception = RuntimeError("No valid triton configs. OutOfResources: out of resource: shared memory")
    at: tuple[int, ...] = ()
    in_gradients = False
    compiles_gradients = True
    calls = 0

    @classmethod
    def serves(cls, encoding: Any, device: torch.device) -> bool:
        return True

    @classmethod
    def attend(cls, q: Any, k: Any, v: Any, encoding: Any, at: Any, mask: Mask, features: Any = None) -> torch.Tensor:
        cls.calls += 1
        if len(at) in cls.at and not cls.in_gradients:
            raise cls.error
        context = Blocked.attend(q, k, v, encoding, at, mask, features)
        if cls.in_gradients and torch.is_grad_enabled():
            context.register_hook(cls.breaks)
        return context

    @classmethod
    def breaks(cls, gradient: torch.Tensor) -> torch.Tensor:
        raise cls.error


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(falling_back, "_failed", {})
    monkeypatch.setattr(falling_back, "_tried", set())


def made(**changes: Any) -> type[Breaking]:
    return type("Made", (Breaking,), changes)


def call(path: type[AttentionPath], length: int, text: str = "alibi", gradients: bool = False, mask: Mask = ALL_PAST):
    draw, encoding = torch.Generator().manual_seed(length), built(text, True)
    q, k, v = (torch.randn(2, 3, length, 8, generator=draw).requires_grad_(gradients) for _ in range(3))
    with torch.set_grad_enabled(gradients):
        given = (q, k, v, encoding, torch.arange(length), mask, features_of(encoding, 2, length))
        context = attended(path, *given)
        exact = (Checkpointed if gradients else Blocked).attend(*given)
        found = []
        for each in (context, exact):
            wanted = [q, k, v, *encoding.parameters()]
            found.append([each, *(torch.autograd.grad(each.sum(), wanted, retain_graph=True) if gradients else [])])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_a_shape_that_failed_is_not_tried_again_and_its_kind_ends_with_the_second():
    path = made(at=(12, 20))
    with taken() as found:
        for length in (12, 12, 16, 12):
            call(path, length)
        assert path.calls == 2
        assert found.paths("Made") == "Made+blocked"
        for length in (20, 20, 16, 33):
            call(path, length)
        assert path.calls == 3
    assert found.note == (
        "blocked computed what the attention path Made could not: RuntimeError: No valid triton configs. "
        "OutOfResources: out of resource: shared memory"
    )
    with taken() as later:
        call(path, 40)
        call(path, 40, "kerple_log")
    assert path.calls == 4
    assert later.paths("Made") == "Made+blocked"
    with taken() as last:
        call(path, 40)
    assert last.paths("Made+sdpa") == "blocked+sdpa"


@pytest.mark.parametrize(
    "error",
    [
        PathError("it cannot hold 32 heads of 128"),
        NotImplementedError("The operator 'aten::bucketize' is not currently implemented for the MPS device."),
        RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
        torch._dynamo.exc.FailOnRecompileLimitHit("recompile_limit reached with fullgraph=True"),
        ImportError("libcuda.so cannot be opened"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("gradients", [False, True], ids=["scoring", "training"])
def test_whatever_a_path_raises_the_exact_one_computes(error: Exception, gradients: bool):
    path = made(error=error, at=(12,))
    with taken() as found:
        call(path, 12, gradients=gradients)
    assert found.paths("Made") == ("checkpointed" if gradients else "blocked")
    assert str(error)[:40] in found.note


@pytest.mark.parametrize("gradients", [False, True], ids=["scoring", "training"])
@pytest.mark.parametrize("text", ["fox", "sinks(rope)", "inkling", "path", "remap(rope)", "stick_breaking"])
@pytest.mark.parametrize("mask", [Mask(), Mask(window=5), Mask(chunk=4)], ids=str)
def test_what_stands_in_has_the_same_mask_features_and_remainder(mask: Mask, text: str, gradients: bool):
    for path in (made(at=(12,)), made(at=(12,), in_gradients=True)):
        with taken() as found:
            call(path, 12, text, gradients, mask)
        whole = not gradients and path.in_gradients
        assert found.paths("Made") == ("Made" if whole else "checkpointed" if gradients else "blocked")


def test_a_shape_that_failed_under_one_mask_is_tried_under_another():
    path = made(at=(12,))
    for mask in (Mask(), Mask(window=5), Mask(window=5)):
        call(path, 12, mask=mask)
    assert path.calls == 2


def test_a_backward_pass_that_fails_is_found_before_the_loss_is_differentiated():
    path = made(at=(12,), in_gradients=True)
    with taken() as found:
        call(path, 12, "kerple_log", gradients=True)
        call(path, 12, "kerple_log", gradients=True)
    assert path.calls == 1
    assert found.paths("Made") == "checkpointed"


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), LengthError("too long")], ids=repr
)
def test_lack_of_memory_and_our_own_errors_are_no_such_failure(error: Exception):
    path = made(error=error, at=(12,))
    with taken() as found, pytest.raises(type(error)):
        call(path, 12)
    assert not found.falls


def test_what_the_exact_path_raises_too_is_raised(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Blocked, "attend", made(error=ValueError("of the encoding"), at=(12,)).attend)
    with taken() as found, pytest.raises(ValueError, match="of the encoding"):
        call(made(at=(12,)), 12)
    assert not found.falls


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "rows.csv").open(encoding="utf-8") as text:
        return list(csv.DictReader(text))


def measured(folder: Path, *flags: str, **environment: str) -> list[dict[str, str]]:
    command = [sys.executable, "-m", "lpe_eval", "ppl", "-m", "alibi", "-m", "kerple-log", "--lengths", "128,300"]
    command += ["--max-tokens", "1500", "--protocol", "nonoverlap", "--device", "cpu", "-q", "--out", str(folder)]
    paths = os.pathsep.join([str(folder.parent / "site"), str(ROOT)])
    done = subprocess.run(
        [*command, *flags],
        env={**os.environ, "PYTHONPATH": paths, "TORCHINDUCTOR_CACHE_DIR": f"{folder}-compiled", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return rows_of(folder)


@pytest.fixture
def flex_here(tmp_path: Path) -> Path:
    """A package that registers the path `flex` for CPUs, where FlexAttention needs a C++ compiler."""
    facts = tmp_path / "site" / "flex_here-0.dist-info"
    facts.mkdir(parents=True)
    (tmp_path / "site" / "flex_here.py").write_text(FLEX_HERE, encoding="utf-8")
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: flex_here\nVersion: 0\n", encoding="utf-8")
    (facts / "entry_points.txt").write_text("[lpe_eval.attentions]\nflex_here = flex_here:FlexHere\n", encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_a_run_whose_compiler_is_not_there_has_the_rows_of_blocked(flex_here: Path):
    rows = measured(flex_here / "missing", CXX="/nowhere/c++")
    wanted = measured(flex_here / "blocked", "--attention", "blocked")
    assert [row.pop("attention") for row in rows] == ["blocked"] * len(rows)
    assert all("flex_here" in row["note"] and "compiler" in row["note"].lower() for row in rows)
    differs = ("attention", "note", "run")
    assert len(rows) >= 4
    for mine, theirs in zip(rows, wanted, strict=True):
        assert {**mine, **dict.fromkeys(differs)} == {**theirs, **dict.fromkeys(differs)}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler")
def test_the_same_run_with_a_compiler_takes_the_path_and_agrees(flex_here: Path):
    rows = measured(flex_here / "compiled")
    wanted = measured(flex_here / "blocked", "--attention", "blocked")
    assert {row["attention"] for row in rows} == {"flex_here"}
    for mine, theirs in zip(rows, wanted, strict=True):
        assert not mine["note"]
        assert float(mine["value"]) == pytest.approx(float(theirs["value"]), rel=1e-6)
