"""Everything decided before a weight is read: which checkpoints, which text, which windows, how much work."""

from collections.abc import Container, Sequence
from typing import NamedTuple

from lpe_eval.data.corpus import Corpus
from lpe_eval.data.selection import Selection, choose_documents
from lpe_eval.data.tokenizer import IDS, Tokenizer, open_tokenizer
from lpe_eval.data.windows import Bos, plan, resolve
from lpe_eval.errors import CheckpointError, LpeEvalError, SpecError
from lpe_eval.measure.by_length import Plan, distinct_inputs
from lpe_eval.model.checkpoint import LoadOptions, Located, Peek, locate
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.spec.protocol_spec import ProtocolSpec
from lpe_eval.table import CellKey


class Planned(NamedTuple):
    """One model and everything decided about it before its weights are read."""

    reference: str
    located: Located
    peek: Peek
    tokenizer: Tokenizer
    selection: Selection
    plans: list[Plan]


def plan_models(spec: PerplexitySpec, corpus: Corpus, options: LoadOptions) -> list[Planned]:
    """Finds every checkpoint, chooses the text once for each tokenizer, and plans all windows.

    Raises:
        SpecError: protocols and lengths do not fit, or two models have one name.
        CheckpointError: a checkpoint is not there or its config is not one.
        DataError: the text is missing or too short.
    """
    protocols = [resolve(protocol, spec.lengths) for protocol in spec.protocols]
    selections: dict[str, tuple[Tokenizer, Selection]] = {}
    planned: list[Planned] = []
    for reference in spec.models:
        alias, rest = split_alias(reference)
        located = locate(rest)
        peek = located.peek(options)
        peek = peek._replace(name=alias) if alias else peek
        if any(peek.name == each.peek.name for each in planned):
            raise SpecError(f"two models are called {peek.name!r}; tell them apart with -m NAME={rest}")
        peek, opened = _tokenizer(reference, peek, spec, corpus, selections)
        if opened is not None:
            selections[peek.tokenizer] = (opened, _select(spec, corpus, opened))
        tokenizer, selection = selections[peek.tokenizer]
        bos = _bos(spec, tokenizer)
        lengths = [len(document.tokens) for document in selection.documents]
        plans = [
            Plan(
                length,
                {
                    _key(peek.name, protocol, length): plan(
                        protocol, length, lengths, bos, spec.tail, max(spec.lengths)
                    )
                    for protocol in protocols
                },
            )
            for length in spec.lengths
        ]
        planned.append(Planned(reference, located, peek, tokenizer, selection, plans))
    return planned


def _tokenizer(
    reference: str, peek: Peek, spec: PerplexitySpec, corpus: Corpus, known: Container[str]
) -> tuple[Peek, Tokenizer | None]:
    """A model's tokenizer, None where it is known; text that is token ids already needs none."""
    if peek.tokenizer in known:
        return peek, None
    try:
        if not peek.tokenizer:
            raise CheckpointError(
                f"{reference} has no tokenizer; name one with --tokenizer hf:PATH or char:FILE, or --tokenizer bytes "
                "for a model of bytes"
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
    """The plans without the cells that are done."""
    left = [
        Plan(each.length, {key: windows for key, windows in each.windows.items() if key not in finished})
        for each in plans
    ]
    return [each for each in left if each.windows]


def work(plan: Plan) -> int:
    """How much a plan costs, in units that only compare."""
    return round(sum(distinct_inputs(plan)) * work_per_token(plan.length))


def work_per_token(length: int) -> float:
    """Work of one token: attention's share grows with the length, which is all a progress bar needs."""
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
        bos=_bos(spec, tokenizer),
    )


def _bos(spec: PerplexitySpec, tokenizer: Tokenizer) -> Bos:
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
