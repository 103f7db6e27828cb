"""Windows of one length go through a model; whatever is raised meanwhile becomes a status and a note."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from lpe_eval.data.selection import EncodedDocument
from lpe_eval.errors import CheckpointError, LengthError, one_sentence
from lpe_eval.measure.batches import Forward, Plan, Span, Texts, WindowError, fed, release, run_batches, spans_of
from lpe_eval.measure.determinism import is_not_deterministic
from lpe_eval.measure.memory import begin_peak, peak_memory_mib
from lpe_eval.measure.progress import Advance
from lpe_eval.model.falling_back import taken
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.model.needed_memory import free_memory, shortfall
from lpe_eval.out_of_memory import out_of_memory


class Passed(NamedTuple):
    """What came of windows of one length that went through a model.

    Attributes:
        forward: their losses; None where something was raised.
        attention: the paths that computed them.
        peak: highest memory, in MiB.
        status: `n/a` or `failed` where there are no losses; else empty.
        note: why there are none, or which attention paths fell back.
    """

    forward: Forward | None
    attention: str
    peak: float
    status: str
    note: str


def pass_through(
    model: LanguageModel,
    texts: Texts,
    plan: Plan,
    needed: Mapping[Span, int],
    highest: int,
    batch_tokens: int,
    advance: Advance,
    adapt: bool,
) -> Passed:
    """Feeds some spans of a plan; what is raised meanwhile is told, and memory is let go.

    Args:
        model: what is measured.
        texts: what it is fed from.
        plan: the windows of a length, which decide what stands in one batch.
        needed: the spans whose losses are asked for.
        highest: the highest id in the documents.
        batch_tokens: token budget of a batch.
        advance: told of tokens, of all that are asked for in the end.
        adapt: whether a batch that is slower than its windows one by one may shrink.

    Raises:
        RuntimeError: a step is not deterministic where that is demanded.
    """
    left = sum(fed(span) for span in needed)

    def counted(done: int) -> None:
        nonlocal left
        left -= done
        advance(done)

    bos_id = texts.bos_id
    unknown = max(highest, bos_id if bos_id is not None and any(span.bos for span in needed) else -1)
    begin_peak(model.device)
    with taken() as paths:
        try:
            _refuse_what_cannot_be(model, plan.length, needed, unknown)
            forward = run_batches(model, texts, spans_of(plan.whole), needed, batch_tokens, counted, adapt)
            return Passed(forward, paths.paths(model.attention), peak_memory_mib(model.device), "", paths.note)
        except Exception as error:
            # Encodings and kernels may be anybody's; what they raise costs this length alone.
            status, note = _why_without_value(error, plan.length)
    release(model.device)
    advance(left)
    return Passed(None, _attention(model), 0.0, status, note)


def highest_id(documents: Sequence[EncodedDocument]) -> int:
    """The highest id in some documents; -1 where there is none."""
    return max((int(each.tokens.max()) for each in documents if len(each.tokens)), default=-1)


def _refuse_what_cannot_be(model: LanguageModel, length: int, wanted: Iterable[Span], highest_id: int) -> None:
    """Raises CheckpointError for ids without a symbol, and for windows that a processor's memory does not hold.

    A GPU says at once that its memory does not hold something.
    """
    if highest_id >= model.facts.vocab_size:
        raise CheckpointError(
            f"the text holds the token {highest_id} and the model has {model.facts.vocab_size} symbols"
        )
    longest = max(map(fed, wanted), default=0)
    least = model.least_bytes(longest) if model.device.type == "cpu" else 0
    if short := shortfall(0, 0, least, free_memory()):
        raise CheckpointError(f"a window of {length} tokens {short}")


def _attention(model: LanguageModel) -> str:
    """The attention path, of a model that may have failed in saying it."""
    try:
        return model.attention
    except Exception:
        return ""


def _why_without_value(error: Exception, length: int) -> tuple[str, str]:
    """Status and note of the cells of a length at which something was raised.

    Raises:
        RuntimeError: what was raised says that a step is not deterministic where that is demanded.
    """
    tokens, cause = (error.tokens, error.__cause__) if isinstance(error, WindowError) else (length, error)
    assert cause is not None
    if is_not_deterministic(cause):
        raise cause
    if isinstance(cause, LengthError):
        note = str(cause)
        return "n/a", note if tokens == length else f"{note}; the windows that failed have {tokens} tokens"
    if out_of_memory(cause):
        return "failed", f"out of memory with a single window of {tokens} tokens"
    note = one_sentence(cause)
    if tokens != length:
        note += f"; that was a shorter window of {tokens} tokens, at the end of a document: --tail drop leaves it out"
    return "failed", note
