"""Ten thousand parts: how long planning, writing and merging take, and how much memory, without any model.

    python benchmarks/many_parts.py [--models 20] [--windows 250] [--lengths 32768,131072]

Windows, parts and files are those of a sweep; the losses are drawn. Each model is asked at every length of as much text
as `--windows` of the longest hold, so that with the defaults the long length has a part for each window, and the other
as many. What is timed is the program's own: `parts_of`, `PartStore` and `lpe-eval merge`.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lpe_eval.commands.merge import merge
from lpe_eval.data.windows import plan as cut
from lpe_eval.data.windows import resolve
from lpe_eval.measure.batches import Plan
from lpe_eval.measure.parts import Part, long_lengths
from lpe_eval.part_records import CellPart, PartSums, Piece, numbered
from lpe_eval.report.folders.ppl import open_run
from lpe_eval.report.folders.provenance import provenance_bytes
from lpe_eval.report.folders.shared import SharedPlan, Sharing
from lpe_eval.shard import shares
from lpe_eval.spec.fingerprint import spec_text
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.spec.protocol_spec import ProtocolSpec
from lpe_eval.spec.tasks import read_task
from lpe_eval.table import BLOCK_TARGETS, BlockSum, CellKey, Facts, PositionSum

_PROTOCOL = ProtocolSpec.model_validate({"name": "nonoverlap"})
_FACTS = Facts("rope", 4096, "custom", 0, "drawn", "test", 0, "bfloat16", "cuda")


def main() -> None:
    """Prints seconds and memory of each step."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--models", type=int, default=20)
    asked.add_argument("--windows", type=int, default=250)
    asked.add_argument("--lengths", default="32768,131072")
    given = asked.parse_args()
    lengths = [int(each) for each in given.lengths.split(",")]
    models = [f"model-{number}" for number in range(given.models)]
    with tempfile.TemporaryDirectory(dir=".") as folder:
        out = Path(folder) / "out"
        began = _now()
        plans = list(_plans(models, lengths, given.windows))
        long = long_lengths(plans, lambda length: 16384)
        pieces = [
            Piece(name, plan.length, [list(key) for key in plan.windows],
                  [sum(window.n_scored for window in windows) for windows in plan.windows.values()],
                  len(long[name, plan.length]), long[name, plan.length][0].name.cut,
                  [part.work for part in long[name, plan.length]])
            for name, plan in plans
        ]  # fmt: skip
        shares([work for each in pieces for work in each.work], 64)
        shared = SharedPlan("ppl", "drawn", pieces, {"key_spans": None})
        count = sum(map(len, long.values()))
        began = _told("planning", began, count)
        changes = {"models": models, "lengths": lengths, "protocols": [{"name": "nonoverlap"}]}
        spec = PerplexitySpec.model_validate(PerplexitySpec.of_task(read_task("python-stdlib"), changes))
        draw, size = np.random.default_rng(0), 0
        with open_run(out, spec_text(spec), "drawn", sharing=Sharing(shared, "1-of-1")) as run:
            for name, plan in plans:
                (key,) = plan.windows
                for part in long[name, plan.length]:
                    run.parts.save(_drawn(key, part, draw))
                    size += run.parts.path(part.name).stat().st_size
            provenance = {"kind": "ppl", "run": "drawn", "models": {}, "starts": []}
            (out / "parts" / "shard-1-of-1.json").write_bytes(provenance_bytes(provenance))
        print(f"{size / 2**20:.0f} MiB in {count} files")
        began = _told("writing", began, count)
        merge([out], None, lambda sentence: None)
        _told("merging", began, count)


def _plans(models: list[str], lengths: list[int], windows: int) -> Iterator[tuple[str, Plan]]:
    longest = max(lengths)
    for name in models:
        for length in lengths:
            found = cut(resolve(_PROTOCOL, lengths), length, [longest + 1] * windows, "never", "score", longest)
            yield name, Plan(length, {CellKey(name, "nonoverlap", length, length): found})


def _drawn(key: CellKey, part: Part, draw: np.random.Generator) -> PartSums:
    blocks = []
    for span in sorted(part.spans):
        for number in range(span.start // BLOCK_TARGETS, span.stop // BLOCK_TARGETS):
            nats = float(draw.normal(2 * BLOCK_TARGETS, 50))
            block = BlockSum(f"{span.document}.txt", f"{span.document:064d}", number, nats, BLOCK_TARGETS, 4096, 0)
            blocks.append((span.document, block))
    # As many targets as were planned, which merging checks.
    scored = sum(part.spans.values())
    last, (document, block) = len(blocks) - 1, blocks[-1]
    rest = scored - BLOCK_TARGETS * last
    blocks[-1] = (document, block._replace(n_tokens=rest))
    positions = tuple(PositionSum(at, at, float(draw.normal(20, 1)), 10) for at in range(1, 200))
    cell = CellPart(key, numbered(blocks), positions, 1.0, float(part.tokens), len(part.spans), 0)
    return PartSums(part.name, _FACTS, "flash", "ok", "", "", 1024.0, 16384, (cell,))


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _told(what: str, began: tuple[float, float], count: int) -> tuple[float, float]:
    wall, used = (now - then for now, then in zip(_now(), began, strict=True))
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    print(
        f"{what:9} {count} parts: {wall:6.1f} s, {used:6.1f} of the processor, at most {peak:.0f} MiB so far",
        flush=True,
    )
    return _now()


if __name__ == "__main__":
    main()
