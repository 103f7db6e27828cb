"""The protocols of other tools, each as its own loop, beside the windows that docs/coming-from.md gives for it.

A loop says with how many tokens of context, BOS included, each target is scored. The loops follow the tools' published
code; what they are compared with is `windows.plan` with the flags of the table.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from lpe_eval.data.windows import Bos, Tail, plan
from lpe_eval.spec.protocol_spec import ProtocolSpec

Contexts = dict[int, int]
"""Context of each scored target."""


def ours(n: int, length: int, bos: Bos = "never", tail: Tail = "score", **protocol: object) -> Contexts:
    windows = plan(ProtocolSpec.model_validate(protocol), length, [n], bos, tail, length)
    return {target: target - each.start + each.bos for each in windows for target in range(each.score_from, each.stop)}


def guide(n: int, max_length: int, stride: int) -> Contexts:
    """Perplexity of fixed-length models, in transformers' documentation: labels are shifted inside the window."""
    seen, previous = {}, 0
    for begin in range(0, n, stride):
        end = min(begin + max_length, n)
        scored = range(max(previous, begin + 1), end)
        seen |= {target: target - begin for target in scored}
        previous = end
        if end == n:
            break
    return seen


def yarn(n: int, max_length: int, stride: int, bos: bool, truncate: bool = False) -> Contexts:
    """YaRN's eval/perplexity.py: BOS takes a place in every window."""
    text = max_length - bos
    n, stride = (min(n, text), text) if truncate else (n, stride)
    seen, previous = {}, 0
    for begin in range(0, n, stride):
        end = min(begin + text, n)
        first = previous if bos else max(previous, begin + 1)
        seen |= {target: target - begin + bos for target in range(first, end)}
        previous = end
        if end == n:
            break
    return seen


def lm_eval(n: int, max_length: int) -> Contexts:
    """loglikelihood_rolling of lm-evaluation-harness: a prefix token first, the last window extended to the left."""
    first = min(max_length, n)
    seen = {target: target + 1 for target in range(first)}
    while len(seen) < n:
        end = len(seen) + min(n - len(seen), max_length)
        begin = end - max_length - 1
        seen |= {target: target - begin for target in range(len(seen), end)}
    return seen


def llama(n: int, n_ctx: int) -> Contexts:
    """llama-perplexity without BOS: whole chunks, of which the second half is scored."""
    return {chunk * n_ctx + at: at for chunk in range(n // n_ctx) for at in range(n_ctx // 2 + 1, n_ctx)}


def llama_strided(n: int, n_ctx: int, stride: int) -> Contexts:
    """llama-perplexity --ppl-stride: windows are half a stride longer than -c says."""
    window = n_ctx + stride // 2
    chunks = max(0, -(-(n - window) // stride))
    return {chunk * stride + at: at for chunk in range(chunks) for at in range(window - stride, window)}


def fairseq(n: int, tokens_per_sample: int, context_window: int) -> Contexts:
    """eval_lm of fairseq: blocks, each after what is left of the blocks before it; `</s>` precedes the text."""
    block, seen = tokens_per_sample - context_window, {}
    for begin in range(0, n, block):
        end = min(begin + block, n)
        fed = min(begin, context_window)
        seen |= {target: target - begin + fed + 1 for target in range(begin, end)}
    return seen


def neox(n: int, seq_length: int, last: int | None = None) -> Contexts:
    """GPT-NeoX, KERPLE and DAPE: samples of seq_length + 1 tokens that share one; what is left over is not read."""
    last = seq_length if last is None else last
    return {
        sample * seq_length + at: at
        for sample in range((n - 1) // seq_length)
        for at in range(seq_length - last + 1, seq_length + 1)
    }


class Row(NamedTuple):
    """One row of the table, for a text of `n` tokens."""

    theirs: Callable[[int], Contexts]
    ours: Callable[[int], Contexts]


EQUAL = {
    "guide": Row(lambda n: guide(n, 16, 4), lambda n: ours(n, 15, name="sliding", stride=4)),
    "guide, stride 1": Row(lambda n: guide(n, 16, 1), lambda n: ours(n, 15, name="sliding", stride=1)),
    "yarn, bos": Row(lambda n: yarn(n, 17, 4, True), lambda n: ours(n, 16, "always", name="sliding", stride=4)),
    "yarn": Row(lambda n: yarn(n, 17, 4, False), lambda n: ours(n, 16, name="sliding", stride=4)),
    "llama.cpp --ppl-stride": Row(
        lambda n: llama_strided(n, 16, 4), lambda n: ours(n, 17, name="anchored", last_k=4, stride=4)
    ),
    "fairseq": Row(lambda n: fairseq(n, 16, 0), lambda n: ours(n, 16, "first-window", name="nonoverlap")),
    "fairseq, ALiBi's sliding": Row(
        lambda n: fairseq(n, 16, 15), lambda n: ours(n, 16, "first-window", name="sliding", stride=1)
    ),
    "fairseq, stride divides": Row(
        lambda n: fairseq(n, 16, 12), lambda n: ours(n, 16, "first-window", name="sliding", stride=4)
    ),
    "neox": Row(lambda n: neox(n, 16), lambda n: ours(n, 16, tail="drop", name="nonoverlap")),
    "dape": Row(lambda n: neox(n, 16, 6), lambda n: ours(n, 16, name="last", last_k=6)),
    "llama.cpp -c": Row(lambda n: llama(n, 16), lambda n: ours(n, 15, name="anchored", last_k=7, stride=16)),
}
LENGTHS = [*range(34, 60), 128, 129]


@pytest.mark.parametrize("name", EQUAL)
def test_the_flags_score_the_same_targets_with_the_same_context(name: str) -> None:
    row = EQUAL[name]
    for n in LENGTHS:
        if name == "llama.cpp --ppl-stride" and (n - 18) % 4 == 0:
            # It begins no window that would end with the text; ours has that one block more.
            assert row.theirs(n).items() < row.ours(n).items()
        else:
            assert row.theirs(n) == row.ours(n), n


def test_lm_eval_is_equal_where_the_length_divides_the_text_and_differs_in_the_last_window_alone() -> None:
    for n in LENGTHS:
        theirs, mine = lm_eval(n, 16), ours(n, 16, "first-window", name="nonoverlap")
        assert theirs.keys() == mine.keys()
        differing = {target for target in mine if theirs[target] != mine[target]}
        assert differing == set(range(n - n % 16, n)) if n % 16 else not differing
        assert all(theirs[target] > mine[target] for target in differing)


def test_a_guide_without_overlap_leaves_out_the_first_token_of_each_window() -> None:
    for n in range(48, 80, 16):
        assert guide(n, 16, 16) == ours(n, 15, name="anchored", last_k=15, stride=16)
        assert n - 1 - len(guide(n, 16, 16)) == n // 16 - 1


def test_a_truncated_yarn_scores_the_first_window_of_each_text() -> None:
    for n in range(16, 32):
        assert yarn(n, 17, 4, True, truncate=True) == ours(n, 16, "always", "drop", name="nonoverlap")


def test_last_scores_one_target_more_than_a_chunk_of_llama() -> None:
    for n in LENGTHS:
        more = ours(n, 16, name="last", last_k=8).items() - llama(n, 16).items()
        assert {target % 16 for target, _ in more} <= {0}


def test_a_stride_that_does_not_divide_the_window_begins_otherwise_in_fairseq() -> None:
    theirs, mine = fairseq(128, 16, 10), ours(128, 16, "first-window", name="sliding", stride=6)
    assert theirs.keys() == mine.keys() and theirs != mine
