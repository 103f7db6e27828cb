"""Everything decided before a weight is read: which checkpoints, which text, which windows, how much work."""

from collections.abc import Container, Sequence
from typing import NamedTuple

from lpe_eval.data.corpus import Corpus
from lpe_eval.data.selection import Selection, choose_documents
from lpe_eval.data.tokenizer import IDS, EncodedText, Tokenizer, open_tokenizer
from lpe_eval.data.windows import Bos, Window, plan, resolve
from lpe_eval.errors import CheckpointError, CodeError, DataError, LpeEvalError, SpecError, one_sentence
from lpe_eval.measure.batches import Plan, fed, spans_of
from lpe_eval.model.checkpoint import LoadOptions, Located, Peek, locate
from lpe_eval.screen import visible
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.spec.protocol_spec import ProtocolSpec
from lpe_eval.table import CellKey


class Planned(NamedTuple):
    """One model and everything decided about it before its weights are read.

    Attributes:
        why_not: what its own code or its tokenizer raised; then nothing is decided but the cells, and they fail.
    """

    reference: str
    located: Located
    peek: Peek
    tokenizer: Tokenizer
    selection: Selection
    plans: list[Plan]
    why_not: str = ""


class _NoTokenizer(Tokenizer):
    """Stands where a model or its tokenizer could not be opened; whoever asks it for something is told why."""

    name, vocab_size, eos_id, adds_bos, fingerprint = "", 0, None, False, ""

    def __init__(self, why: str) -> None:
        self._why = why

    @property
    def bos_id(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        raise CheckpointError(self._why)

    @classmethod
    def open(cls, argument: str) -> "_NoTokenizer":
        return cls(argument)

    def encode(self, text: str) -> EncodedText:
        raise CheckpointError(self._why)


def plan_models(spec: PerplexitySpec, corpus: Corpus, options: LoadOptions) -> list[Planned]:
    """Finds every checkpoint, chooses the text once for each tokenizer, and plans all windows.

    What a model's own code or its tokenizer raises costs that model alone, as long as there is another one.

    Raises:
        SpecError: protocols and lengths do not fit, or two models have one name.
        CheckpointError: a checkpoint is not there or its config is not one.
        DataError: the text is missing or too short.
    """
    protocols = [resolve(protocol, spec.lengths) for protocol in spec.protocols]
    selections: dict[str, tuple[Tokenizer, Selection]] = {}
    planned: list[Planned] = []
    errors: list[Exception] = []
    for reference in spec.models:
        alias, rest = split_alias(reference)
        located = locate(rest)
        peek = Peek(alias or visible(rest), "", "")
        try:
            peek = located.peek(options)
            peek = peek._replace(name=alias) if alias else peek
            each = _planned(spec, corpus, protocols, reference, located, peek, selections)
        except Exception as error:
            if not _is_somebodys(error):
                raise
            errors.append(error)
            plans = [Plan(at, {_key(peek.name, protocol, at): [] for protocol in protocols}) for at in spec.lengths]
            why = one_sentence(error)
            each = Planned(reference, located, peek, _NoTokenizer(why), Selection([], "", 0, 0), plans, why)
        if any(each.peek.name == other.peek.name for other in planned):
            raise SpecError(f"two models are called {each.peek.name!r}; tell them apart with -m NAME={rest}")
        planned.append(each)
    if len(errors) == len(planned):
        raise errors[0]
    return planned


def _planned(
    spec: PerplexitySpec,
    corpus: Corpus,
    protocols: Sequence[ProtocolSpec],
    reference: str,
    located: Located,
    peek: Peek,
    selections: dict[str, tuple[Tokenizer, Selection]],
) -> Planned:
    peek, opened = tokenizer_of(reference, peek, spec, corpus, selections)
    if opened is not None:
        selections[peek.tokenizer] = (opened, _select(spec, corpus, opened))
    tokenizer, selection = selections[peek.tokenizer]
    bos = bos_of(spec, tokenizer)
    sizes, longest = [len(document.tokens) for document in selection.documents], max(spec.lengths)
    plans = [
        Plan(
            length,
            {
                _key(peek.name, protocol, length): plan(protocol, length, sizes, bos, spec.tail, longest)
                for protocol in protocols
            },
        )
        for length in spec.lengths
    ]
    return Planned(reference, located, peek, tokenizer, selection, plans)


def _is_somebodys(error: Exception) -> bool:
    """Whether an error was raised by code of somebody else, so that it says nothing about other models.

    A slip in a name, a missing file, a text that is too short: these are better told before anything is measured.
    """
    if isinstance(error, DataError):
        return error.__cause__ is not None and not isinstance(error.__cause__, OSError)
    return isinstance(error, CodeError) or not isinstance(error, LpeEvalError)


def tokenizer_of(
    reference: str, peek: Peek, spec: PerplexitySpec, corpus: Corpus, known: Container[str]
) -> tuple[Peek, Tokenizer | None]:
    """A model's tokenizer, None where it is known; text that is token ids already needs none.

    Raises:
        CheckpointError: it names none.
        LpeEvalError: the tokenizer cannot be opened.
    """
    if peek.tokenizer in known:
        return peek, None
    try:
        if not peek.tokenizer:
            raise CheckpointError(
                f"{reference} names no tokenizer; use --tokenizer hf:PATH or char:FILE, or --tokenizer bytes for a "
                "model of bytes, or give an object of your own an attribute `tokenizer` or a method `encode`"
            )
        return peek, open_tokenizer(peek.tokenizer, spec.trust_remote_code)
    except LpeEvalError:
        if not corpus.holds_ids or spec.tokenizer is not None:
            raise
    return peek._replace(tokenizer=IDS), None if IDS in known else open_tokenizer(IDS)


def split_alias(reference: str) -> tuple[str, str]:
    """`NAME=REFERENCE` taken apart; a reference may hold an equals sign too, behind a colon or a path."""
    alias, equals, rest = reference.partition("=")
    if not equals or any(mark in alias for mark in ":/\\?"):
        return "", reference
    return alias, rest


def unfinished(plans: Sequence[Plan], finished: set[CellKey]) -> list[Plan]:
    """The plans with the cells that are done set apart, but those of which nothing is left."""

    def parted(each: Plan, done: bool) -> dict[CellKey, Sequence[Window]]:
        return {key: windows for key, windows in each.windows.items() if (key in finished) == done}

    left = [Plan(each.length, parted(each, False), parted(each, True)) for each in plans]
    return [each for each in left if each.windows]


def tokens_of(plan: Plan) -> int:
    """Tokens fed by all windows that go through the model, those that protocols share once."""
    return sum(fed(span) for span in spans_of(plan))


def work(plan: Plan) -> int:
    """How much a plan costs, in units that only compare."""
    return round(tokens_of(plan) * work_per_token(plan.length))


def work_per_token(length: int) -> float:
    """Work of one token: attention's share grows with the length."""
    return 1 + length / 2048


def _select(spec: PerplexitySpec, corpus: Corpus, tokenizer: Tokenizer) -> Selection:
    return choose_documents(
        corpus,
        corpus.split,
        tokenizer,
        longest=max(spec.lengths),
        max_tokens=spec.max_tokens,
        seed=spec.seed,
        pack=spec.pack,
        bos=bos_of(spec, tokenizer),
    )


def bos_of(spec: PerplexitySpec, tokenizer: Tokenizer) -> Bos:
    """Which windows begin with BOS.

    Raises:
        SpecError: the tokenizer has no such token.
    """
    if spec.bos == "auto":
        return "always" if tokenizer.adds_bos else "never"
    if spec.bos != "never" and tokenizer.bos_id is None:
        raise SpecError(f"--bos {spec.bos}: the tokenizer {tokenizer.name} has no such token; use --bos never")
    return spec.bos


def _key(model: str, protocol: ProtocolSpec, length: int) -> CellKey:
    match protocol.name:
        case "nonoverlap":
            return CellKey(model, "nonoverlap", length, length)
        case "sliding":
            return CellKey(model, "sliding", length, protocol.stride or max(1, length // 2))
        case "last":
            return CellKey(model, f"last-{protocol.last_k}", length, length)
        case "anchored":
            return CellKey(model, f"anchored-{protocol.last_k}", length, protocol.stride)
