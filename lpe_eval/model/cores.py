"""Independent pieces of work on the CPU, a whole piece on each core.

torch shares every single operation among its threads, and they wait for each other after each, awake or asleep as the
OpenMP runtime pleases. A chain of hundreds of short operations can spend half of its time on that. A piece that stays
on one core waits once, at its end. How much this gives stands in benchmarks/README.md.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def on_cores(work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
    """`work` of each piece, in the order of the pieces, on as many threads as torch uses.

    Pieces are begun in their order, so the longest should come first. No gradients are kept.

    Raises:
        Exception: whatever `work` raises. Pieces that have not begun by then are dropped.
    """
    threads, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()

    def alone(piece: Piece) -> Result:
        with torch.inference_mode(inference), torch.no_grad():
            return work(piece)

    # Gradient modes and the number of threads belong to a thread. Setting the number also sets
    # what threads begun later start with, which is why it is put back.
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        return list(pool.map(alone, pieces))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
