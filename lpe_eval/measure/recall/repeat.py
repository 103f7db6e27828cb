"""Repeat: a passage, then the passage again. What does the second copy cost, and what would it cost without the first?

    copy        u_1 ... u_d   u_1 ... u_d       the second copy is scored; every target lies d tokens after its source
    control     w_1 ... w_d   u_1 ... u_d       the same targets after an unrelated passage of the same length

`copy_nats` and `control_nats` are mean losses of these targets, `gain_nats` their difference, piece by piece;
`accuracy` and `control_accuracy` are shares of targets that are the model's first guess. Copying as a test: Jelassi
et al. 2024, arXiv 2402.01032 (sjelassi/transformers_ssm_copy); theirs is generated and counts whole strings.

Choices:
    * A passage is put together of pieces from different places of the text. Within a piece the text alone foretells
      some of it, so pieces keep that the same at every distance: a whole passage of text would get easier with its
      length. At every length the same pieces are scored, as far as its distance is a multiple of a piece.
    * The unrelated passage is the next prompt's. With d tokens in all pieces together, some pieces are scored twice.
    * A window feeds exactly its length. Without BOS the last token of the second copy is fed as well, and what
      follows is not scored.
    * A piece is the unit of errors. Those of one passage are scored in one pass, and are taken for independent.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from lpe_eval.data.selection import EncodedDocument
from lpe_eval.errors import DataError
from lpe_eval.measure.recall.trial import Found, Place, Scored, Tokens, Trial, Window, digest_of, joined, shuffled
from lpe_eval.records import Item


def passages_of(length: int, piece: int, wanted: int) -> tuple[int, int]:
    """How many passages a length has, at least two, and of how many pieces each is made."""
    distance = length // 2
    return max(2, -(-wanted // distance)), -(-distance // piece)


def pieces_needed(lengths: Sequence[int], piece: int, wanted: int) -> int:
    """How many pieces serve all lengths."""
    return max(count * pieces for count, pieces in (passages_of(length, piece, wanted) for length in lengths))


def text_pieces(documents: Sequence[EncodedDocument], piece: int, count: int, source: torch.Generator) -> list[Tokens]:
    """Pieces from different places of the text, none of which overlap.

    Raises:
        DataError: there is too little text.
    """
    places = [
        (each.tokens, start)
        for each in documents
        for start in range(0, len(each.tokens) - piece + 1, piece)
    ]  # fmt: skip
    if len(places) < count:
        raise DataError(
            f"repeat needs {count} pieces of {piece} tokens, and the text has {len(places)}; lower --lengths or "
            "--repeat-tokens, or take more text"
        )
    return [places[at][0][places[at][1] :][:piece] for at in shuffled(len(places), source)[:count]]


def random_pieces(symbols: Tokens, piece: int, count: int, source: torch.Generator) -> list[Tokens]:
    """Pieces of tokens that are drawn one by one, each of `symbols` as likely as any other."""
    drawn = torch.randint(len(symbols), (count, piece), generator=source).numpy()
    return list(symbols[drawn])


def repeat_trial(task: str, pieces: Sequence[Tokens], length: int, wanted: int, bos: bool) -> Trial:
    """The trial at a length.

    Args:
        task: its name.
        pieces: at least as many as `passages_of` asks for, all of one size.
        length: of a window, even.
        wanted: targets that are scored, at least.
        bos: whether windows begin with BOS.
    """
    distance, size = length // 2, len(pieces[0])
    count, each = passages_of(length, size, wanted)
    passages = [joined(pieces[at * each : (at + 1) * each])[:distance] for at in range(count)]
    asked = np.arange(distance, 2 * distance)
    texts = [(one, one) for one in passages] + list(zip([*passages[1:], passages[0]], passages, strict=True))
    windows = [Window(joined([*pair, *([] if bos else [pair[1][:1]])]), asked) for pair in texts]
    digests = [digest_of(*pair, other) for pair, (other, _) in zip(texts[:count], texts[count:], strict=True)]
    place = Place(distance)
    return Trial(task, length, [place], windows, partial(_read, place, size, each, digests))


def _read(
    place: Place, size: int, each: int, digests: Sequence[str], scored: Sequence[Scored], symbols: int
) -> list[Found]:
    """Items by metric, one a piece."""
    items: dict[str, list[Item]] = {
        name: [] for name in ("copy_nats", "control_nats", "gain_nats", "accuracy", "control_accuracy")
    }
    copies, controls = scored[: len(digests)], scored[len(digests) :]
    for number, (digest, copy, control) in enumerate(zip(digests, copies, controls, strict=True)):
        for part, start in enumerate(range(0, len(copy.nats), size)):
            here = slice(start, start + size)
            name, count = f"piece-{number * each + part:04}", len(copy.nats[here])
            totals = {
                "copy_nats": copy.nats[here].sum(),
                "control_nats": control.nats[here].sum(),
                "gain_nats": (control.nats[here] - copy.nats[here]).sum(),
                "accuracy": copy.top[here].sum(),
                "control_accuracy": control.top[here].sum(),
            }
            for metric, total in totals.items():
                items[metric].append(Item(name, f"{digest}/{part}", float(total), count))
    return [Found(place, items, {"gain_nats": 0.0, "accuracy": 1 / symbols, "control_accuracy": 1 / symbols})]
