"""Everything that is decided before a weight is read: the prompts of every test at every length, for each tokenizer."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lpe_eval.data.selection import Selection
from lpe_eval.data.tokenizer import Tokenizer
from lpe_eval.errors import LengthError
from lpe_eval.measure.plan import Planned, work_per_token
from lpe_eval.measure.recall.needles import hidden_needles, needle_trial
from lpe_eval.measure.recall.niah import counted_by, niah_prompts, niah_trial, words_of_the_harness
from lpe_eval.measure.recall.pairs import pairs_trial, token_pairs, written_pairs
from lpe_eval.measure.recall.repeat import pieces_needed, random_pieces, repeat_trial, text_pieces
from lpe_eval.measure.recall.scoring import fed
from lpe_eval.measure.recall.trial import Place, Trial, joined, source_of, unable
from lpe_eval.spec.recall_spec import RecallSpec, Test

_TEXT = 4
"""Times as much text is read as `repeat` takes pieces of, so that they come from many places."""


def tokens_of_text(spec: RecallSpec) -> int:
    """How many tokens of text the prompts of a spec are made of."""
    pieces = pieces_needed(spec.lengths, spec.piece, spec.repeat_tokens) if "repeat" in spec.tests else 0
    return max(spec.prompts * (max(spec.lengths) + 1), _TEXT * pieces * spec.piece)


def with_bos(spec: RecallSpec, tokenizer: Tokenizer) -> bool:
    """Whether windows begin with BOS."""
    return tokenizer.adds_bos if spec.bos == "auto" else spec.bos == "always"


def trials_of(spec: RecallSpec, planned: Planned, known: dict[str, list[Trial]]) -> list[Trial]:
    """The trials of a model, test by test and by length; those of models with the same tokenizer are the same.

    Args:
        spec: what is measured.
        planned: the model.
        known: those of other tokenizers, by their names; a new one is added.

    Raises:
        DataError: there is too little text.
        MissingExtra: a package that prompts need is not installed.
    """
    if planned.why_not:
        return [unable(spec.task(test), at, _places(spec, test, at), planned.why_not)
                for test in spec.tests for at in spec.lengths]  # fmt: skip
    name = planned.peek.tokenizer
    if name not in known:
        bos = with_bos(spec, planned.tokenizer)
        made = {"repeat": _repeat, "needle": _niah if spec.needle == "niah_single_1" else _needle, "pairs": _pairs}
        known[name] = [
            trial for test in spec.tests for trial in made[test](spec, planned.tokenizer, planned.selection, bos)
        ]
    return known[name]


def work_of(trial: Trial, bos: bool) -> int:
    """How much a trial costs, in tokens, more for those of long windows."""
    return round(sum(fed(each, bos) for each in trial.windows) * work_per_token(trial.length))


def _repeat(spec: RecallSpec, tokenizer: Tokenizer, text: Selection, bos: bool) -> list[Trial]:
    task, count = spec.task("repeat"), pieces_needed(spec.lengths, spec.piece, spec.repeat_tokens)
    source = source_of("repeat", spec.passages, spec.seed)
    if spec.passages == "text":
        pieces = text_pieces(text.documents, spec.piece, count, source)
    else:
        pieces = random_pieces(_symbols(tokenizer, text), spec.piece, count, source)
    return [repeat_trial(task, pieces, length, spec.repeat_tokens, bos) for length in spec.lengths]


def _needle(spec: RecallSpec, tokenizer: Tokenizer, text: Selection, bos: bool) -> list[Trial]:
    def made() -> Any:
        return hidden_needles(
            tokenizer, text.documents, form=spec.needle, prompts=spec.prompts, candidates=spec.told_from,
            longest=max(spec.lengths), seed=spec.seed,
        )  # fmt: skip

    return _each(spec, "needle", made, lambda task, held, at: needle_trial(task, held, at, spec.depths, bos))


def _niah(spec: RecallSpec, tokenizer: Tokenizer, text: Selection, bos: bool) -> list[Trial]:
    words = words_of_the_harness()

    def made() -> Any:
        return niah_prompts(random.Random(spec.seed), words, counted_by(tokenizer), spec.lengths)

    def trial(task: str, held: Any, at: int) -> Trial:
        return niah_trial(task, held[at][: spec.prompts], at, tokenizer, spec.told_from, spec.seed, bos)

    return _each(spec, "needle", made, trial)


def _pairs(spec: RecallSpec, tokenizer: Tokenizer, text: Selection, bos: bool) -> list[Trial]:
    shape = {"prompts": spec.prompts, "count": spec.n_pairs, "longest": max(spec.lengths), "seed": spec.seed}

    def made() -> Any:
        if spec.pairs == "tokens":
            return token_pairs(_symbols(tokenizer, text), **shape)
        return written_pairs(tokenizer, text.documents, **shape)

    return _each(spec, "pairs", made, lambda task, held, at: pairs_trial(task, held, at, bos))


def _each(
    spec: RecallSpec, test: Test, made: Callable[[], Any], trial: Callable[[str, Any, int], Trial]
) -> list[Trial]:
    """A trial for each length; what this tokenizer cannot write, or not at a length, says so in place of prompts."""
    task = spec.task(test)
    try:
        held = made()
    except LengthError as error:
        return [unable(task, at, _places(spec, test, at), str(error)) for at in spec.lengths]
    found = []
    for at in spec.lengths:
        try:
            found.append(trial(task, held, at))
        except LengthError as error:
            found.append(unable(task, at, _places(spec, test, at), str(error)))
    return found


def _places(spec: RecallSpec, test: str, length: int) -> Sequence[Place]:
    """The places of a trial that cannot be made, as far as they are known."""
    if test == "repeat":
        return [Place(length // 2)]
    if test == "needle" and spec.needle != "niah_single_1":
        return [*(Place(None, depth) for depth in spec.depths), Place()]
    return [Place()]


def _symbols(tokenizer: Tokenizer, text: Selection) -> np.ndarray:
    """The tokens that occur in the text: no special ones, and none that pad a vocabulary."""
    found = np.unique(joined([each.tokens for each in text.documents]))
    return found[~np.isin(found, [each for each in (tokenizer.bos_id, tokenizer.eos_id) if each is not None])]
