"""How far values move with what should not move them: batch size, threads, attention path; and with bfloat16.

Each released checkpoint scores the same windows of `python-stdlib` in every way, in one process:

    OMP_NUM_THREADS=1 python benchmarks/rounding.py --lengths 512 4096 --tokens 12289

The reference is float32, one window a batch, one thread, and the path that `auto` takes. Two tables are
printed, in nats: by how much the mean over all targets moves, and the farthest that any single target moves.
`-` stands where a path does not serve an encoding, `0` where every target is the same to the bit.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from lpe_eval.data.batch import batch_of
from lpe_eval.data.corpus import open_corpus
from lpe_eval.data.selection import EncodedDocument, choose_documents
from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.data.windows import Window, plan, resolve
from lpe_eval.errors import SpecError
from lpe_eval.measure.score import target_losses
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.spec.corpus_spec import CorpusSpec
from lpe_eval.spec.protocol_spec import ProtocolSpec
from lpe_eval.spec.released import released_names

BATCH_TOKENS = 16384
"""What `--batch-size auto` takes."""

PATHS = ("dense", "blocked", "toeplitz", "sdpa")


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--tokens", type=int, default=12289)
    parser.add_argument("--models", nargs="+", default=released_names())
    arguments = parser.parse_args()
    text = choose_documents(
        open_corpus(CorpusSpec.parse("python-stdlib")),
        "test",
        open_tokenizer("bytes"),
        longest=max(arguments.lengths),
        max_tokens=arguments.tokens,
        seed=0,
        cap=max(arguments.lengths) + 1,
    )
    tables: dict[str, list[str]] = {"mean": [], "single": []}
    for length in arguments.lengths:
        protocol = resolve(ProtocolSpec(name="nonoverlap"), tuple(arguments.lengths))
        sizes = [len(document.tokens) for document in text.documents]
        windows = plan(protocol, length, sizes, "never", "drop", max(arguments.lengths))
        for name in arguments.models:
            found = dict(ways(name, text.documents, windows, length))
            base = found.pop("reference")
            moved = {way: None if losses is None else np.abs(losses - base) for way, losses in found.items()}
            by_mean = {way: None if losses is None else abs((losses - base).mean()) for way, losses in found.items()}
            for kind, values in (
                ("mean", by_mean),
                ("single", {way: None if each is None else each.max() for way, each in moved.items()}),
            ):
                if not tables[kind]:
                    tables[kind] += [line(["model", "length", "loss", *found]), line(["---"] * (3 + len(found)))]
                cells = [name, str(length), f"{base.mean():.4f}", *(shown(value) for value in values.values())]
                tables[kind].append(line(cells))
        print(f"{length} tokens: {len(windows)} windows", flush=True)
    print("\nThe mean over all targets moves by, in nats:\n\n" + "\n".join(tables["mean"]))
    print("\nThe farthest that a single target moves, in nats:\n\n" + "\n".join(tables["single"]))


def ways(
    name: str, documents: list[EncodedDocument], windows: list[Window], length: int
) -> Iterator[tuple[str, NDArray[np.float64] | None]]:
    """The losses of all targets, by the way in which they were computed; None where a path does not serve."""
    yield "reference", losses(name, documents, windows, 1)
    for size in (2, 8):
        yield f"batch {size}", losses(name, documents, windows, size)
    yield "batch auto", losses(name, documents, windows, max(1, BATCH_TOKENS // length))
    torch.set_num_threads(2)
    yield "2 threads", losses(name, documents, windows, 1)
    torch.set_num_threads(1)
    for path in PATHS:
        yield path, losses(name, documents, windows, 1, path)
    yield "bfloat16", losses(name, documents, windows, 1, dtype=torch.bfloat16)


def losses(
    name: str,
    documents: list[EncodedDocument],
    windows: list[Window],
    size: int,
    path: str = "auto",
    dtype: torch.dtype = torch.float32,
) -> NDArray[np.float64] | None:
    """Nats of every target of every window, in order; None where the path does not serve."""
    model = locate(name).load(LoadOptions(torch.device("cpu"), dtype, path))
    found = []
    try:
        for start in range(0, len(windows), size):
            batch = batch_of(windows[start : start + size], documents, None, model.device)
            found.append(target_losses(model, batch, torch.Generator().manual_seed(0)).double().flatten().numpy())
    except SpecError:
        if path == "auto":
            raise
        return None
    return np.concatenate(found)


def shown(value: float | None) -> str:
    """A difference as a cell of a table."""
    return "-" if value is None else "0" if value == 0 else f"{value:.1e}"


def line(cells: list[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
