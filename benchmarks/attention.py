"""Every attention path against plain causal attention and against the papers' dense formulation.

    python benchmarks/attention.py --length 8192 --heads 4 --width 64
    python benchmarks/attention.py --memory 4096 8192 16384

Time: in one process, all candidates in turn, several rounds, and of each candidate the median and
the ratio to plain attention. "As published" is written from the formula in the order of the papers'
code: the whole matrix of biases, for DAPE its concatenation with the logits, heads moved last for
`nn.Linear`, and back; `--published-length` measures it where it fits, beside plain attention of that
length.

Memory: for each encoding and length a process of its own, its peak less what it held before.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, linear, scaled_dot_product_attention

from lpe_eval.model.attention import choose
from lpe_eval.model.build import build_encodings, initialise
from lpe_eval.model.encoding import Encoding, Geometry
from lpe_eval.model.encodings.dape import Dape
from lpe_eval.model.encodings.dape_v2 import DapeV2
from lpe_eval.model.mask import Mask
from lpe_eval.spec.encoding_spec import EncodingSpec

CPU = torch.device("cpu")
KERPLE, ROPE = EncodingSpec(name="kerple_log"), EncodingSpec(name="rope")
CANDIDATES = {
    **{name: EncodingSpec(name=name) for name in ("none", "alibi", "kerple_log", "t5", "sandwich", "mep", "fire")},
    "dape 32": EncodingSpec(name="dape", options={"hidden": 32}, base=KERPLE),
    "dape 8": EncodingSpec(name="dape", options={"hidden": 8}, base=KERPLE),
    "dape_v2": EncodingSpec(name="dape_v2", base=KERPLE),
    "cope": EncodingSpec(name="cope"),
    # As released for models trained on 4,096 tokens; ranges of 64 keys are what a model of 512 has.
    "remap self_extend": EncodingSpec(name="remap", options={"original_length": 4096}, base=ROPE),
    "remap rerope": EncodingSpec(name="remap", options={"method": "rerope", "original_length": 4096}, base=ROPE),
    "remap rerope 64": EncodingSpec(name="remap", options={"method": "rerope"}, base=ROPE),
    "remap dca": EncodingSpec(name="remap", options={"method": "dca", "original_length": 4096}, base=ROPE),
    "fox": EncodingSpec(name="fox"),
    "cable": EncodingSpec(name="cable"),
    "inkling": EncodingSpec(name="inkling", options={"extent": 512}),
    "tempered": EncodingSpec(name="tempered", base=EncodingSpec(name="none")),
    "sinks": EncodingSpec(name="sinks", base=EncodingSpec(name="none")),
    "stick_breaking": EncodingSpec(name="stick_breaking"),
    "path": EncodingSpec(name="path"),
    "none, window 512": EncodingSpec(name="none"),
    "alibi, window 512": EncodingSpec(name="alibi"),
    "fox, window 512": EncodingSpec(name="fox"),
}
UNPUBLISHED = ("none", "cope", "fox", "cable", "inkling", "tempered", "sinks", "stick_breaking", "path")
"""Encodings whose formula stands in no paper as a whole matrix of biases."""


def built(spec: EncodingSpec, heads: int, width: int) -> Encoding:
    """One encoding with drawn parameters."""
    encodings = build_encodings(spec, Geometry(heads, width, heads * width, 512), 1)
    initialise(encodings, torch.Generator().manual_seed(3))
    return encodings[0]


def inputs(length: int, heads: int, width: int) -> list[Tensor]:
    """Queries, keys and values of one text."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, heads, length, width, generator=generator) for _ in range(3)]


def attention_of(name: str, length: int, heads: int, width: int) -> tuple[str, Callable[..., Tensor]]:
    """The path of a candidate, and a call of it with queries, keys and values.

    The features of tokens are made in the call, as a layer makes them.
    """
    encoding, at = built(CANDIDATES[name], heads, width), torch.arange(length)
    mask = Mask(window=512) if "window" in name else Mask()
    taken, path = choose("auto", encoding, CPU)
    x = torch.randn(1, length, heads * width, generator=torch.Generator().manual_seed(1))

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        features = encoding.features(x) if encoding.capabilities.features else None
        return path.attend(*encoding.rotate(q, k, at), v, encoding, at, mask, features)

    return taken, call


def as_published(q: Tensor, k: Tensor, v: Tensor, encoding: Encoding) -> Tensor:
    """The formula with every matrix whole."""
    length, inner = q.shape[2], encoding.inner if isinstance(encoding, Dape | DapeV2) else encoding
    at = torch.arange(length)
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    with torch.enable_grad():  # fire by its network
        bias = inner.bias(at, at)
    assert bias is not None
    bias = bias.detach()[None].contiguous()
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    if isinstance(encoding, Dape):
        both = torch.cat([logits, bias.expand_as(logits)], dim=1)
        hidden = linear(both.permute(0, 2, 3, 1), encoding.first.weight, encoding.first.bias)
        change = linear(leaky_relu(hidden), encoding.second.weight, encoding.second.bias).permute(0, 3, 1, 2)
        logits = logits + change
    elif isinstance(encoding, DapeV2):
        both = torch.cat([logits, bias.expand_as(logits)], dim=1).masked_fill(future, 0.0)
        logits = logits + encoding.second(padded(leaky_relu(encoding.first(padded(both)))))
    return ((logits + bias).masked_fill(future, float("-inf"))).softmax(-1) @ v


def padded(channels: Tensor) -> Tensor:
    """A zero on both sides of the key axis."""
    return torch.nn.functional.pad(channels, (1, 1))


def alternating(runs: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """The median seconds of each, all taking turns in every round.

    In its turn each runs twice and the second run counts, so that none pays for the memory that
    the one before gave back; the first round does not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for name, run in runs.items():
                run()
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each[1:]) for name, each in seconds.items()}


def time_table(length: int, heads: int, width: int, rounds: int, names: list[str], published: bool) -> None:
    """Prints a Markdown table of medians and ratios."""
    q, k, v = inputs(length, heads, width)
    runs: dict[str, Callable[[], Tensor]] = {"plain": lambda: scaled_dot_product_attention(q, k, v, is_causal=True)}
    paths = {"plain": "sdpa"}
    for name in names:
        if published and (name.partition(",")[0] in UNPUBLISHED or name.startswith("remap")):
            continue
        paths[name], call = attention_of(name, length, heads, width)
        runs[name] = lambda call=call: call(q, k, v)
        if published:
            encoding = built(CANDIDATES[name], heads, width)
            runs[f"{name}, as published"] = lambda encoding=encoding: as_published(q, k, v, encoding)
    seconds = alternating(runs, rounds)
    print(
        f"\n{length} tokens, {heads} heads of {width}, {torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )
    print("| encoding | path | median seconds | times plain |\n|---|---|---|---|")
    for name, median in seconds.items():
        print(f"| {name} | {paths.get(name, '')} | {median:.3f} | {median / seconds['plain']:.2f} |")


def memory_table(lengths: list[int], heads: int, width: int, names: list[str]) -> None:
    """Prints a Markdown table of peak memory, each number from a process of its own."""
    print(f"\n| encoding | {' | '.join(f'MiB at {length}' for length in lengths)} |\n|---|{'---|' * len(lengths)}")
    for name in names:
        cells = []
        for length in lengths:
            command = [sys.executable, __file__, "--peak", name, "--length", str(length)]
            command += ["--heads", str(heads), "--width", str(width)]
            cells.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def print_peak(name: str, length: int, heads: int, width: int) -> None:
    """Prints how many MiB attention needed over what the process held with its inputs."""
    short, long = (attention_of(name, each, heads, width)[1] for each in (256, length))
    with torch.inference_mode():
        short(*inputs(256, heads, width))
        q, k, v = inputs(length, heads, width)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        long(q, k, v)
    print(round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def main() -> None:
    """Reads the flags and prints the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--published-length", type=int, help="also measure the papers' formulation, at this length")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=64, help="width of one head")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--memory", type=int, nargs="+", metavar="LENGTH", help="measure peak memory instead of time")
    parser.add_argument("--peak", choices=CANDIDATES, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.peak:
        print_peak(flags.peak, flags.length, flags.heads, flags.width)
    elif flags.memory:
        memory_table(flags.memory, flags.heads, flags.width, flags.only)
    else:
        print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
        time_table(flags.length, flags.heads, flags.width, flags.rounds, flags.only, False)
        if flags.published_length:
            time_table(flags.published_length, flags.heads, flags.width, flags.rounds, flags.only, True)


if __name__ == "__main__":
    main()
