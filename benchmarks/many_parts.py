"""Ten thousand parts: how long planning, writing and merging take, and how much memory, without any model.

    python benchmarks/many_parts.py [--models 20] [--windows 250] [--lengths 32768,131072] [--protocols nonoverlap]

Windows, parts and files are those of a sweep; the losses are drawn. Each model is asked at every length of as much text
as `--windows` of the longest hold, a document each, so that with the defaults the long length has a part for each
window, and the other as many. What is timed is the program's own: `parts_of`, `PartStore` and `lpe-eval merge`. A
length must be long enough for the text to have several parts.

The defaults have more parts than most sweeps, and one protocol. A sweep as people do it, of every protocol that scores
the same text at every length:

    python benchmarks/many_parts.py --models 40 --windows 12 --protocols nonoverlap,sliding,anchored \
        --lengths 4096,8192,16384,32768,65536,131072
"""

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from lpe_eval.commands.merge import merge
from lpe_eval.data.windows import Window, resolve
from lpe_eval.data.windows import plan as cut
from lpe_eval.measure.batches import Plan, Span, span_of
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

_FACTS = Facts("rope", 4096, "custom", 0, "drawn", "test", 0, "bfloat16", "cuda")


def main() -> None:
    """Prints seconds and memory of each step."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--models", type=int, default=20)
    asked.add_argument("--windows", type=int, default=250)
    asked.add_argument("--lengths", default="32768,131072")
    asked.add_argument("--protocols", default="nonoverlap")
    given = asked.parse_args()
    protocols = [{"name": name} for name in given.protocols.split(",")]
    lengths = [int(each) for each in given.lengths.split(",")]
    models = [f"model-{number}" for number in range(given.models)]
    with tempfile.TemporaryDirectory(dir=".") as folder:
        out = Path(folder) / "out"
        began = _now()
        plans = list(_plans(models, lengths, given.windows, protocols))
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
        changes = {"models": models, "lengths": lengths, "protocols": protocols}
        spec = PerplexitySpec.model_validate(PerplexitySpec.of_task(read_task("python-stdlib"), changes))
        draw, size = np.random.default_rng(0), 0
        with open_run(out, spec_text(spec), "drawn", sharing=Sharing(shared, "1-of-1")) as run:
            for name, plan in plans:
                windows = {key: {span_of(each): each for each in own} for key, own in plan.windows.items()}
                for part in long[name, plan.length]:
                    run.parts.save(_drawn(windows, part, draw))
                    size += run.parts.path(part.name).stat().st_size
            provenance = {"kind": "ppl", "run": "drawn", "models": {}, "starts": []}
            (out / "parts" / "shard-1-of-1.json").write_bytes(provenance_bytes(provenance))
        print(f"{size / 2**20:.0f} MiB in {count} files")
        began = _told("writing", began, count)
        merge([out], None, lambda sentence: None)
        _told("merging", began, count)


def _plans(
    models: list[str], lengths: list[int], windows: int, protocols: list[dict[str, str]]
) -> Iterator[tuple[str, Plan]]:
    longest = max(lengths)
    asked = [resolve(ProtocolSpec.model_validate(each), lengths) for each in protocols]
    for name in models:
        for length in lengths:
            found = {
                CellKey(name, each.name, length, each.stride or length): cut(
                    each, length, [longest + 1] * windows, "never", "score", longest
                )
                for each in asked
            }
            yield name, Plan(length, found)


def _drawn(windows: Mapping[CellKey, Mapping[Span, Window]], part: Part, draw: np.random.Generator) -> PartSums:
    cells = []
    for key, own in windows.items():
        counts: Counter[tuple[int, int]] = Counter()
        mine = [own[span] for span in part.spans if span in own]
        for window in mine:
            for number in range(window.score_from // BLOCK_TARGETS, (window.stop - 1) // BLOCK_TARGETS + 1):
                first, last = number * BLOCK_TARGETS, (number + 1) * BLOCK_TARGETS
                counts[window.document, number] += min(window.stop, last) - max(window.score_from, first)
        blocks = (
            (document, BlockSum(f"{document}.txt", f"{document:064d}", number, nats, count, 4 * count, 0))
            for ((document, number), count), nats in zip(
                sorted(counts.items()), draw.normal(2000, 50, len(counts)).tolist(), strict=True
            )
        )
        nats = draw.normal(20, 1, 199 if mine else 0).tolist()
        positions = tuple(PositionSum(at, at, each, 10) for at, each in enumerate(nats, 1))
        tokens = float(sum(window.n_input for window in mine))
        cells.append(CellPart(key, numbered(blocks), positions, 1.0, tokens, len(mine), 0))
    return PartSums(part.name, _FACTS, "flash", "ok", "", "", 1024.0, 16384, tuple(cells))


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
