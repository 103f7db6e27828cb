"""Time and memory of one call, and of a forward and a backward pass, beside plain attention."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, linear, scaled_dot_product_attention

from cuda_sections.setting import FAILURES, Setting, built, inputs, wait
from lpe_eval.model.attention import AttentionPath, choose
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.falling_back import attended
from lpe_eval.model.mask import Mask
from lpe_eval.model.positions import run_on


def as_published(q: Tensor, k: Tensor, v: Tensor, encoding: Encoding) -> Tensor:
    """The papers' formula in the model's dtype, with every matrix whole."""
    length, at = q.shape[2], torch.arange(q.shape[2], device=q.device)
    network = encoding.pair_network()
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    bias = encoding.bias(at, at)
    assert bias is not None
    bias = bias.to(q.dtype)[None]
    future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    if network is not None:
        first, first_bias, second, second_bias = (each.to(q.dtype) for each in network[:4])
        both = torch.cat([logits, bias.expand_as(logits)], dim=1)
        hidden = leaky_relu(linear(both.permute(0, 2, 3, 1), first, first_bias), network.leak)
        logits = logits + linear(hidden, second, second_bias).permute(0, 3, 1, 2)
    return (logits + bias).masked_fill(future, float("-inf")).softmax(-1) @ v


Run = Callable[[list[Tensor]], Tensor]


def candidates(setting: Setting) -> Iterator[tuple[str, str, Run]]:
    """Plain attention by each of PyTorch's kernels, then the encodings by path."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends = {"default": None}
    if setting.device.type == "cuda":
        backends |= {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
    for name, backend in backends.items():

        def plain(drawn: list[Tensor], backend: SDPBackend | None = backend) -> Tensor:
            if backend is None:
                return scaled_dot_product_attention(*drawn, is_causal=True)
            with sdpa_kernel(backend):
                return scaled_dot_product_attention(*drawn, is_causal=True)

        yield "plain", name, plain
    wanted_paths = [
        (name, "auto") for name in ("alibi", "kerple_log", "t5", "fire", "dape 32", "dape 8", "dape_v2", "cope")
    ]
    for name, wanted in [*wanted_paths, ("alibi", "blocked"), ("fire", "blocked"), ("dape 32", "blocked")]:
        encoding = built(name, setting)
        label, path = choose(wanted, encoding, setting.device)

        def ours(drawn: list[Tensor], encoding: Encoding = encoding, path: type[AttentionPath] = path) -> Tensor:
            return attended(path, *drawn, encoding, run_on(drawn[1].shape[2], drawn[1].device), Mask())

        yield name, label, ours
    for name in ("alibi", "fire", "dape 32"):
        encoding = built(name, setting)
        yield name, "as published", lambda drawn, encoding=encoding: as_published(*drawn, encoding)


def seconds_of(run: Callable[[], object], setting: Setting, repeat: int) -> float:
    """Seconds of one of `repeat` calls in a row."""
    wait(setting)
    if setting.device.type != "cuda":
        began = time.perf_counter()
        for _ in range(repeat):
            run()
        return (time.perf_counter() - began) / repeat
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeat):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / repeat


def in_turn(setting: Setting, group: dict[str, Any], runs: dict[tuple[str, str], Callable[[], object]]) -> None:
    """Times all candidates in turn; the unit of each round is its fastest plain attention."""
    repeat: dict[tuple[str, str], int] = {}
    for key, run in runs.items():
        if setting.late():
            break
        try:
            run()  # compiles
            took = seconds_of(run, setting, 1)
            repeat[key] = max(1, min(20, round(0.004 / took)))
        except FAILURES as error:
            # Only the case that writes a failure down can see it.
            with setting.case(**group, encoding=key[0], path=key[1]):
                raise error
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in repeat}
    for _ in range(3 if setting.smoke else 7):
        # What was compiled is measured once at least, however long the compiling took.
        if setting.late() and all(seconds.values()):
            break
        for key, count in repeat.items():
            seconds[key].append(seconds_of(runs[key], setting, count))
    plain = [each for key, each in seconds.items() if key[0] == "plain"]
    unit = [min(each) for each in zip(*plain, strict=True)] if plain else []
    for key, each in seconds.items():
        with setting.case(**group, encoding=key[0], path=key[1]) as result:
            result["milliseconds"] = statistics.median(each) * 1000
            result["spread"] = [min(each) * 1000, max(each) * 1000]
            if unit:
                result["times_plain"] = statistics.median(own / one for own, one in zip(each, unit, strict=True))


def speed_long(setting: Setting) -> None:
    """A call without gradients beside plain causal attention, at the length that counts."""
    speed(setting, setting.lengths[-1:])


def speed_others(setting: Setting) -> None:
    """The same at shorter lengths."""
    speed(setting, [each for each in (4096, 1024, 8192, 2048, 128) if each in setting.lengths[:-1]])


def speed(setting: Setting, lengths: Sequence[int]) -> None:
    """All candidates in turn at each length."""
    found = list(candidates(setting))
    with torch.no_grad():
        for length in lengths:
            if setting.late():
                return
            drawn = inputs(setting, length, setting.dtype)
            runs = {(name, path): lambda run=run, drawn=drawn: run(drawn) for name, path, run in found}
            in_turn(setting, {"length": length}, runs)


def peak(run: Callable[[], object], setting: Setting) -> float:
    """MiB of one call beyond what was held before."""
    run()
    wait(setting)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    wait(setting)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def memory(setting: Setting) -> None:
    """Peak memory of one call at each length."""
    if setting.device.type != "cuda":
        return
    found = [each for each in candidates(setting) if each[0] not in ("t5", "dape 8")]
    with torch.no_grad():
        for name, path, run in found:
            for length in setting.lengths:
                if setting.late():
                    return
                drawn = inputs(setting, length, setting.dtype)
                with setting.case(encoding=name, path=path, length=length) as result:
                    result["mebibytes"] = peak(lambda run=run, drawn=drawn: run(drawn), setting)


def train(setting: Setting) -> None:
    """A forward and a backward pass, its time beside plain attention's and its peak memory."""
    wanted = [("alibi", "auto"), ("kerple_log", "auto"), ("fire", "auto"), ("dape 32", "auto")]
    wanted += [(name, path) for name in ("kerple_log", "dape 32") for path in ("blocked", "checkpointed")]
    for length in (4096, 512) if not setting.smoke else (128,):
        if setting.late():
            return
        drawn = [each.requires_grad_() for each in inputs(setting, length, setting.dtype)]

        def plain(drawn: list[Tensor] = drawn) -> None:
            scaled_dot_product_attention(*drawn, is_causal=True).float().sum().backward()

        runs: dict[tuple[str, str], Callable[[], object]] = {("plain", "default"): plain}
        for name, path in wanted:
            encoding = built(name, setting)
            label, member = choose(path, encoding, setting.device)
            if (name, label) not in runs:
                runs[name, label] = backward_of(member, drawn, encoding)
        in_turn(setting, {"length": length}, runs)
        if setting.device.type == "cuda":
            for (name, label), run in runs.items():
                if setting.late():
                    return
                with setting.case(length=length, encoding=name, path=label) as result:
                    result["mebibytes"] = peak(run, setting)


def backward_of(path: type[AttentionPath], drawn: list[Tensor], encoding: Encoding) -> Callable[[], object]:
    """A forward and a backward pass."""
    at = run_on(drawn[1].shape[2], drawn[1].device)
    return lambda: attended(path, *drawn, encoding, at, Mask()).float().sum().backward()
