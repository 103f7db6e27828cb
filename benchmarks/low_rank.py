"""Biases that are an inner product of positions, as extra features of queries and keys, against the strided path.

    python benchmarks/low_rank.py --lengths 2048 8192 16384

ALiBi's -m (i - j) differs from m j by a constant of the row, which the softmax removes: one feature. Sandwich's
cosines of i - j are sums of products of sines and cosines of i and of j: as many features as its dimension, 128.
With them plain attention computes the bias, if it is exact: each path is held against float64, the largest error of
an output among all, and timed against plain causal attention, all taking turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from lpe_eval.model.attention import choose
from lpe_eval.model.build import build_encodings
from lpe_eval.model.encoding import Encoding, Geometry
from lpe_eval.model.mask import Mask
from lpe_eval.spec.encoding_spec import EncodingSpec

CPU = torch.device("cpu")


def alibi_features(encoding: Encoding, length: int, scale: float) -> tuple[Tensor, Tensor]:
    """One feature of each query and key whose scaled product is m j, with j counted from the middle of the text."""
    slope = -encoding.bias_by_offset(torch.tensor([1]))
    place = torch.arange(length, dtype=torch.float64) - length // 2
    keys = (slope.double() * place)[None, :, :, None].float()
    return torch.full_like(keys, 1 / scale), keys


def sandwich_features(encoding: Encoding, length: int, scale: float) -> tuple[Tensor, Tensor]:
    """Sines and cosines whose scaled products sum to the cosines of the differences, over the head's divisor."""
    half, heads = encoding.options.dimension // 2, encoding.geometry.heads  # pyright: ignore[reportAttributeAccessIssue]
    angles = torch.arange(length, dtype=torch.float64)[:, None] * 10000.0 ** (
        -(torch.arange(half) + 1.0).double() / half
    )
    waves = torch.cat([angles.cos(), angles.sin()], dim=-1)[None, None]
    divisor = 8.0 / heads * torch.arange(1, heads + 1, dtype=torch.float64)
    return (waves / divisor[None, :, None, None] / scale).float(), waves.float().expand(1, heads, -1, -1)


FEATURES = {"alibi": alibi_features, "sandwich": sandwich_features}


def in_float64(q: Tensor, k: Tensor, v: Tensor, encoding: Encoding, rows: Tensor) -> Tensor:
    """Some rows of the formula."""
    q, k, v = q[:, :, rows].double(), k.double(), v.double()
    offset = rows[:, None] - torch.arange(k.shape[2])
    table = encoding.bias_by_offset(torch.arange(k.shape[2])).double()
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + table[:, offset.clamp(min=0)]
    return logits.masked_fill(offset < 0, float("-inf")).softmax(-1) @ v


def seconds_of(runs: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """Medians of all, taking turns; the first round does not count."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            found[name].append(time.perf_counter() - start)
    return {name: statistics.median(each[1:]) for name, each in found.items()}


def main() -> None:
    """Reads the flags and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 8192, 16384])
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {flags.heads} heads of {flags.width}, float32"
    )
    print("| tokens | encoding | times plain, features | strided | largest error, features | strided |")
    print("|---|---|---|---|---|---|")
    for length in flags.lengths:
        generator = torch.Generator().manual_seed(0)
        q, k, v = (torch.randn(1, flags.heads, length, flags.width, generator=generator) for _ in range(3))
        scale = flags.width**-0.5
        for name, features in FEATURES.items():
            geometry = Geometry(flags.heads, flags.width, flags.heads * flags.width, 512)
            encoding = build_encodings(EncodingSpec(name=name), geometry, 1)[0]
            of_q, of_k = features(encoding, length, scale)
            # The kernel wants keys and values of one width, and of whole vectors.
            wide = -(-(flags.width + of_q.shape[-1]) // 16) * 16
            longer_q, longer_k = (
                pad(torch.cat(pair, -1), (0, wide - flags.width - of_q.shape[-1])) for pair in ((q, of_q), (k, of_k))
            )
            path = choose("auto", encoding, CPU)[1]
            runs = {
                "plain": lambda q=q, k=k, v=v: scaled_dot_product_attention(q, k, v, is_causal=True),
                "features": lambda q=longer_q, k=longer_k, v=v, wide=wide, scale=scale: scaled_dot_product_attention(
                    q, k, pad(v, (0, wide - v.shape[-1])), is_causal=True, scale=scale
                )[..., : v.shape[-1]],
                "strided": lambda q=q, k=k, v=v, encoding=encoding, path=path, length=length: path.attend(
                    q, k, v, encoding, torch.arange(length), Mask()
                ),
            }
            rows = torch.arange(0, length, max(1, length // 256))
            with torch.inference_mode():
                right = in_float64(q, k, v, encoding, rows)
                errors = {
                    each: (runs[each]()[:, :, rows] - right).abs().max().item() for each in ("features", "strided")
                }
                seconds = seconds_of(runs, flags.rounds)
            ratios = [seconds[each] / seconds["plain"] for each in ("features", "strided")]
            print(
                f"| {length} | {name} | {ratios[0]:.2f} | {ratios[1]:.2f} | "
                f"{errors['features']:.1e} | {errors['strided']:.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
