"""The best possible guess of a text whose law is known, measured beside the models of a run and like one of them.

It scores the very windows that the models score, so that the difference is what a model lacks and not what a text is
like. It knows symbols and no tokens: where a token is one symbol, and a symbol one token, losses of both are the same
thing. Where that is not so, what a token costs at best is not known, and nothing is measured.

Choices:
    * A token counts as a symbol if the tokenizer gives it, and nothing else, for that symbol alone, gives no symbol the
      token of another one, and every token of the text is such a one and stands for one byte.
    * BOS says that a window begins and nothing else, not even where it says it at a document's beginning alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from lpe_eval.data.corpus import Corpus, Optimum
from lpe_eval.data.selection import Selection
from lpe_eval.data.tokenizer import Tokenizer
from lpe_eval.errors import CodeError, LpeEvalError, SpecError, one_sentence
from lpe_eval.measure.batches import Plan, Span, spans_of
from lpe_eval.measure.by_length import sums_of
from lpe_eval.measure.plan import Planned
from lpe_eval.model.checkpoint import Peek
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.table import OPTIMUM, Facts, Measurement


class Best(NamedTuple):
    """The best guess and what it is asked, as `Planned` says it of a model.

    Attributes:
        peek: its name in tables.
        tokenizer: of the models whose windows it scores.
        selection: their text.
        plans: their windows.
        known: of the text.
        places: where a token stands among the symbols, by its id.
    """

    peek: Peek
    tokenizer: Tokenizer
    selection: Selection
    plans: list[Plan]
    known: Optimum
    places: Int[np.ndarray, " v"]
    reference: str = OPTIMUM
    why_not: str = ""


Scored = Planned | Best
"""What a run has cells of."""


def plan_best(spec: PerplexitySpec, corpus: Corpus, planned: Sequence[Planned]) -> list[Best]:
    """The best guess on the windows of the models; once for each way of cutting the text, mostly one.

    Raises:
        SpecError: a model has the name that the best guess has in tables.
    """
    known = corpus.optimum()
    found: list[Best] = []
    if known is None or spec.pack:
        return found
    for each in planned:
        places = _places(each, known.symbols)
        if places is None or any(_windows(each) == _windows(other) for other in found):
            continue
        name = f"{OPTIMUM} ({each.tokenizer.name})" if found else OPTIMUM
        if any(other.peek.name == name for other in planned):
            raise SpecError(f"a model is called {name!r}, as the best possible guess is; rename it with -m NAME=...")
        plans = [
            Plan(plan.length, {key._replace(model=name): windows for key, windows in plan.windows.items()})
            for plan in each.plans
        ]
        peek = Peek(name, each.peek.tokenizer, "")
        found.append(Best(peek, each.tokenizer, each.selection, plans, known, places))
    return found


def without_best(spec: PerplexitySpec, corpus: Corpus, planned: Sequence[Planned]) -> list[str]:
    """Why some models have no best guess beside them, in sentences."""
    known = corpus.optimum()
    if known is None:
        return []
    if spec.pack:
        return [f"how well {corpus.label} can be guessed at best is known of single documents; leave out --pack"]
    others = [each.tokenizer.name for each in planned if not each.why_not and _places(each, known.symbols) is None]
    return [
        f"how well {corpus.label} can be guessed at best is known for tokens of one symbol each, as --tokenizer bytes "
        f"has them; {name} has others, so its models are measured without a regret"
        for name in dict.fromkeys(others)
    ]


def measure_best(
    best: Best, facts: Facts, begin: Callable[[Plan], None], end: Callable[[int], None]
) -> Iterator[Measurement]:
    """Every cell of the best guess; what its corpus raises costs the cells of that length.

    Args:
        best: what is measured.
        facts: of the run's rows.
        begin: told of the windows of a length before they are looked at.
        end: told of the length after it.
    """
    facts = replace(facts, encoding=OPTIMUM, train_length=None, dtype="float64", device="cpu")
    documents = best.selection.documents
    for plan in best.plans:
        begin(plan)
        try:
            losses = {span: _losses(best, span) for span in spans_of(plan)}
            end(plan.length)
        except Exception as error:
            # The corpus may be anybody's.
            why = one_sentence(error)
            yield from (Measurement(key, facts, "", (), (), None, "failed", why) for key in plan.windows)
            continue
        for key, windows in plan.windows.items():
            blocks, positions = sums_of(documents, windows, losses)
            status, note = ("ok", "") if blocks else ("n/a", "no target is scored at this length")
            yield Measurement(key, facts, "", blocks, positions, None, status, note)


def _losses(best: Best, span: Span) -> np.ndarray:
    window = best.places[best.selection.documents[span.document].tokens[span.start : span.stop]]
    nats = np.asarray(best.known.losses(window), dtype=np.float64)
    if nats.shape != window.shape:
        raise CodeError(f"the corpus gave losses of the shape {nats.shape} for a window of {len(window)} symbols")
    return nats if span.bos else nats[1:]


def _places(planned: Planned, symbols: str) -> Int[np.ndarray, " v"] | None:
    """The place of each token among the symbols, -1 for others; None where the text has others."""
    if planned.why_not:
        return None
    ids: list[int] = []
    for symbol in symbols:
        try:
            encoded = planned.tokenizer.encode(symbol)
        except LpeEvalError:
            return None
        if len(encoded.tokens) != 1:
            return None
        ids.append(int(encoded.tokens[0]))
    if len(set(ids)) < len(ids):
        return None
    places = np.full(max(ids) + 1, -1, dtype=np.int64)
    places[ids] = np.arange(len(ids))
    for document in planned.selection.documents:
        tokens = document.tokens
        if (document.n_bytes != 1).any() or tokens.max() >= len(places) or (places[tokens] < 0).any():
            return None
    return places


def _windows(each: Scored) -> tuple:
    texts = [(document.digest, len(document.tokens)) for document in each.selection.documents]
    return texts, [list(plan.windows.values()) for plan in each.plans]
