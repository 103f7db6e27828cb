"""Training several runs as one stack against one run after another; prints a table.

    OMP_NUM_THREADS=1 python benchmarks/stacked.py
    OMP_NUM_THREADS=2 python benchmarks/stacked.py --runs 6 --encoding rope kerple_log "dape(kerple_log)"

One step on reverse_string strings of each length. "alone" is what a person would write: the reference
transformer in float32, PyTorch's clipping and `torch.optim.Adam`, one run after another. "alone, bfloat16" is the
same with autocast. Freed memory is kept for all of them, as `lpe-eval che --train` does. The candidates take turns;
numbers are medians of milliseconds for all runs together, of wall time or of processor time. On a GPU a stack replays
its recorded steps, and a further column has it without.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch.nn import functional as F

from lpe_eval.data.problem import assemble, open_problem
from lpe_eval.measure.heap import keep_freed_memory
from lpe_eval.spec.che_spec import CheProtocol, read_protocol
from lpe_eval.spec.encoding_spec import EncodingSpec
from lpe_eval.train.problem import encoder_of, new_encoder
from lpe_eval.train.stack import Stack

PROBLEM = open_problem("reverse_string")


def main() -> None:
    """Times every encoding at every length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--encoding", nargs="+", default=["none", "rope", "kerple_log", "dape(kerple_log)"])
    parser.add_argument("--length", nargs="+", type=int, default=[5, 10, 20])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--dropout", type=float, default=0.0, help="0.1 in the protocols; a stack draws it once")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=["wall", "processor"], default="wall")
    chosen = parser.parse_args()
    keep_freed_memory()
    device, clock = (
        torch.device(chosen.device),
        {"wall": time.perf_counter, "processor": time.process_time}[chosen.clock],
    )
    changes = {"batch": chosen.batch, "layers": chosen.layers, "dropout": chosen.dropout, "seeds": range(chosen.runs)}
    protocol = CheProtocol.model_validate({**read_protocol("quick").model_dump(), **changes})
    print(f"{chosen.runs} runs, batch {chosen.batch}, {torch.get_num_threads()} threads, {chosen.clock} time, {device}")
    headed = False
    for encoding in chosen.encoding:
        for length in chosen.length:
            steps = candidates(EncodingSpec.parse(encoding), length, protocol, device)
            found = medians(steps, chosen.rounds, device, clock)
            if not headed:
                columns = ["encoding", "length", *found, "stack / alone", "bfloat16 / alone"]
                print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
                headed = True
            ratios = [found[name] / found["alone"] for name in ("stack", "stack, bfloat16")]
            cells = [*(f"{each:.1f}" for each in found.values()), *(f"{each:.2f}" for each in ratios)]
            print(f"| {encoding} | {length} | {' | '.join(cells)} |", flush=True)


def candidates(
    encoding: EncodingSpec, length: int, protocol: CheProtocol, device: torch.device
) -> dict[str, Callable[[], str | None]]:
    """A step of all runs, four ways; on a GPU a fifth, without recordings. Each tells why it replays nothing."""
    spec = encoder_of(PROBLEM, encoding, protocol)
    strings = torch.Generator().manual_seed(0)
    sample = PROBLEM.sample(protocol.batch, length, strings, torch.device("cpu"))
    tokens, targets = assemble(sample, PROBLEM).to(device), sample.targets.to(device)
    draws, rates = torch.Generator(device), [rate for _, rate in protocol.runs]

    def models() -> list:
        return [new_encoder(spec, seed).to(device).train() for seed, _ in protocol.runs]

    def alone(dtype: torch.dtype) -> Callable[[], str | None]:
        runs = [
            (model, torch.optim.Adam(model.parameters(), rate)) for model, rate in zip(models(), rates, strict=True)
        ]

        def step() -> str | None:
            for model, optimizer in runs:
                with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                    logits = model.logits(model(tokens, draws, targets.shape[1]))
                loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), protocol.clip_norm)
                optimizer.step()

        return step

    def stacked(dtype: torch.dtype, record: bool = True) -> Callable[[], str | None]:
        stack = Stack(models(), rates, protocol.clip_norm, dtype, record)

        def step() -> str | None:
            stack.step(tokens, targets, draws)
            return stack.why_not_replayed

        return step

    types = {"": torch.float32, ", bfloat16": torch.bfloat16}
    found = {
        f"{name}{of}": make(dtype)
        for name, make in (("alone", alone), ("stack", stacked))
        for of, dtype in types.items()
    }
    return found if device.type == "cpu" else {**found, "stack, not replayed": stacked(torch.float32, record=False)}


def medians(
    steps: Mapping[str, Callable[[], str | None]], rounds: int, device: torch.device, clock: Callable[[], float]
) -> dict[str, float]:
    """Milliseconds of each, taking turns after two rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 2):
        for name, step in steps.items():
            began = clock()
            why_not = step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn > 1:
                seconds[name].append(clock() - began)
            if turn == 1 and why_not:
                print(f"{name}: {why_not}", flush=True)
    return {name: 1e3 * statistics.median(own) for name, own in seconds.items()}


if __name__ == "__main__":
    main()
