"""What two rows scored of the same text: the blocks that can be paired, and what was left out.

Documents are told by the digest of their content, so a file that was edited, renamed and edited back, or moved, is
what it reads. Only blocks are paired that both scored to the same number of targets: where a document was cut at
another place, its last block is other text. Every window counts from the start of its document, so the targets of a
paired block have the same context on both sides, whatever became of other documents.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lpe_eval.table import BlockSum

_VERSIONS = ("subset", "revision", "split")
"""What `Corpus.describe` says of a text that others publish, where two runs may have different ones."""


class SharedText(NamedTuple):
    """The blocks of two rows that are the same text, in the same order.

    Attributes:
        new: of the run.
        old: of the baseline.
        total: scored tokens (or bytes) of the baseline, shared or not.
        share: those that the run scored too.
        changed: documents that both name and whose content differs.
        vanished: documents of the baseline whose name the run does not have.
        added: documents of the run whose name the baseline does not have.
    """

    new: list[BlockSum]
    old: list[BlockSum]
    total: int
    share: float
    changed: int
    vanished: int
    added: int


def shared_text(new: Sequence[BlockSum], old: Sequence[BlockSum], in_bytes: bool = False) -> SharedText:
    """Pairs the blocks of two rows.

    Args:
        new: of the run.
        old: of the baseline.
        in_bytes: count bytes and pair whole documents, since blocks of two tokenizers end at different places; where a
            document was cut, the two ends are not the same either, and the smaller side counts as shared.
    """
    mine, theirs = _by_block(new, in_bytes), _by_block(old, in_bytes)
    both = [key for key in theirs if key in mine and (in_bytes or mine[key].n_tokens == theirs[key].n_tokens)]
    here, there = _documents(new), _documents(old)
    gone = [name for digest, name in there.items() if digest not in here]
    more = [name for digest, name in here.items() if digest not in there]
    total = n_tokens(theirs.values())
    covered = sum(min(mine[key].n_tokens, theirs[key].n_tokens) for key in both)
    return SharedText(
        new=[mine[key] for key in both],
        old=[theirs[key] for key in both],
        total=total,
        share=covered / total if total else 0.0,
        changed=sum(name in more for name in gone),
        vanished=sum(name not in more for name in gone),
        added=sum(name not in gone for name in more),
    )


def other_text(new: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    """What tells the texts of two runs apart, and the remedy; "" where their sources say nothing of it.

    Args:
        new: what the provenance of the run says of its corpus; versions are those of `Corpus.describe`.
        old: likewise of the baseline.
    """
    if new.get("name") != old.get("name"):
        return ""
    here, there = _python(new), _python(old)
    if here and there and here != there:
        return (
            f"the text is the library of {here}, in the baseline that of {there}; "
            f"measure with {there}, or make a baseline with {here}"
        )
    for key in _VERSIONS:
        if None not in (new.get(key), old.get(key)) and new[key] != old[key]:
            return f"the {key} of the text is {new[key]}, in the baseline {old[key]}; measure the baseline's"
    return ""


def _python(corpus: Mapping[str, Any]) -> str:
    """`Python 3.11.7`, or another implementation by its name; "" where the text is no library of one."""
    name, version = corpus.get("implementation", "CPython"), corpus.get("python")
    return "" if version is None else f"{'Python' if name == 'CPython' else name} {version}"


def n_tokens(blocks: Iterable[BlockSum]) -> int:
    """Scored targets of some blocks."""
    return sum(block.n_tokens for block in blocks)


def _by_block(blocks: Sequence[BlockSum], in_bytes: bool) -> dict[tuple[str, int], BlockSum]:
    """Each block once; a text that comes twice has both of its sums added, on either side alike."""
    found: dict[tuple[str, int], BlockSum] = {}
    for block in blocks:
        own = block._replace(n_tokens=block.n_bytes, block=0) if in_bytes else block
        if own.n_tokens > 0:
            before = found.get((own.digest, own.block))
            found[own.digest, own.block] = own if before is None else _added(before, own)
    return found


def _added(one: BlockSum, other: BlockSum) -> BlockSum:
    return one._replace(
        nll_nats=one.nll_nats + other.nll_nats,
        n_tokens=one.n_tokens + other.n_tokens,
        n_bytes=one.n_bytes + other.n_bytes,
        n_nonfinite=one.n_nonfinite + other.n_nonfinite,
    )


def _documents(blocks: Iterable[BlockSum]) -> dict[str, str]:
    """The name of each document with a scored target, by its digest."""
    return {block.digest: block.document for block in blocks if block.n_tokens > 0}
