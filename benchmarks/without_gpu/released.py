"""Which path each released model takes on a pretended card, at which lengths, with how many compilations."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

import lpe_eval
from lpe_eval.measure.device import dtype_name
from lpe_eval.model import flex_kernels, fused_kernel
from lpe_eval.model.attention import AttentionPath, choose
from lpe_eval.model.attentions import fused
from lpe_eval.model.build import build_encodings
from lpe_eval.model.encoding import Encoding, Geometry
from lpe_eval.model.falling_back import attended, taken
from lpe_eval.model.mask import Mask
from lpe_eval.model.transformer import masks_of
from lpe_eval.plain import read_plain, yaml_of
from lpe_eval.spec.model_spec import CheckpointSpec
from without_gpu.flex_code import META
from without_gpu.pretended import FAST_MEMORY

LENGTHS = (128, 512, 1024, 2048, 4096, 8192, 16384)
CUDA = torch.device("cuda")


class Warmed:
    """A Triton kernel that is compiled when it is called, and not launched."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., object]:
        return partial(self.kernel.warmup, grid=grid)

    @property
    def compilations(self) -> int:
        """How often it was compiled."""
        return sum(len(each[0]) for each in self.kernel.device_caches.values())


class Graphs:
    """Counts what PyTorch's compiler would be given; its results have the shape of the queries."""

    def __init__(self) -> None:
        self.compilations = 0

    def __call__(self, graph: torch.fx.GraphModule, examples: Any) -> Any:
        self.compilations += 1
        return lambda *given: (torch.empty_like(next(each for each in given if _is_heads(each))),)


def _is_heads(given: object) -> bool:
    return isinstance(given, torch.Tensor) and given.dim() == 4 and given.is_floating_point()


def varied(longest: int | None) -> Iterator[tuple[int, int, int]]:
    """Texts, queries and keys of a run over all lengths and protocols, with ragged ends."""
    for length in LENGTHS:
        if longest is None or length <= longest:
            whole = max(1, 16384 // length)
            for texts in dict.fromkeys((whole, 3, 1)):
                yield from ((texts, rows, length) for rows in dict.fromkeys((length, length // 2, 100, 1)))
            yield from ((texts, rows, length - 37) for texts in (1, 2) for rows in (length - 37, 60))


def paths_of(capability: int) -> Iterator[dict[str, Any]]:
    """A row for each released model."""
    import torch.nn.attention.flex_attention as front

    checks: Any = front
    checks._validate_device = lambda *_: None
    graphs: dict[Any, Graphs] = {}

    def counted(function: Any) -> Any:
        graphs.setdefault(function, Graphs())
        return torch.compile(function, dynamic=True, fullgraph=True, backend=graphs[function])

    made: dict[Any, Any] = {}
    flex: Any = flex_kernels
    flex.compiled = lambda function: made.setdefault(function, counted(function))
    kernels = [Warmed(fused_kernel._weigh()), Warmed(fused_kernel._add())]
    launched: Any = fused_kernel
    launched._weigh, launched._add = (lambda: kernels[0]), (lambda: kernels[1])
    # Tensors without values are on no card, so its memory is told here.
    card: Any = fused
    card._ANY = FAST_MEMORY[capability]
    dtype = getattr(torch, dtype_name("auto", CUDA))
    for folder in sorted(Path(lpe_eval.__file__).parent.joinpath("released").iterdir()):
        spec = CheckpointSpec.model_validate(yaml_of(read_plain(folder / "config.yaml"))).model
        shape = Geometry(spec.heads, spec.width // spec.heads, spec.width, spec.train_length, spec.causal)
        encodings = build_encodings(spec.encoding, shape, spec.layers)
        # Of layers that attend alike, the first.
        layers = {(each.label, mask): each for each, mask in reversed([*zip(encodings, masks_of(spec), strict=True)])}
        longest = min((each.longest_length for each in encodings if each.longest_length is not None), default=None)
        before, asked = _compilations(graphs, kernels), list[str]()
        with taken() as found, torch.inference_mode():
            for (_, mask), encoding in layers.items():
                name, path = choose("auto", encoding.to(META), CUDA)
                asked.append(name)
                for texts, rows, length in varied(longest):
                    context = _attended(path, encoding, mask, torch.Size((texts, length, spec.width)), rows, dtype)
                    assert context.shape == (texts, spec.heads, rows, shape.head_width)
        name = "+".join(dict.fromkeys(asked))
        lengths = [each for each in LENGTHS if longest is None or each <= longest]
        yield {
            "capability": capability, "model": folder.name, "dtype": str(dtype).removeprefix("torch."),
            "asked": name, "path": found.paths(name), "lengths": f"{lengths[0]} to {lengths[-1]}",
            "compilations": _compilations(graphs, kernels) - before, "note": found.note,
        }  # fmt: skip


def _attended(
    path: type[AttentionPath], encoding: Encoding, mask: Mask, shape: torch.Size, rows: int, dtype: torch.dtype
) -> torch.Tensor:
    """What a layer attends to, of tokens that have a shape and no values."""
    x = torch.empty(shape, dtype=dtype, device=META)
    at = _positions(encoding, shape[1])
    heads = torch.empty(*shape[:2], 3, encoding.geometry.heads, encoding.geometry.head_width, dtype=dtype, device=META)
    q, k, v = heads.permute(2, 0, 3, 1, 4)
    q, k = (each.to(dtype) for each in encoding.rotate(q, k, at))
    features = encoding.features(x) if encoding.capabilities.features else None
    return attended(path, q[:, :, shape[1] - rows :], k, v, encoding, at, mask, features)


def _positions(encoding: Encoding, length: int) -> torch.Tensor:
    return encoding.positions(length, META, torch.Generator().manual_seed(1))


def _compilations(graphs: dict[Any, Graphs], kernels: list[Warmed]) -> int:
    return sum(each.compilations for each in [*graphs.values(), *kernels])
