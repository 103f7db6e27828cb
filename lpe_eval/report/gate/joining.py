"""Which row of a run is compared with which rows of a baseline, and what is different about how they were measured.

A model is its name: a release is compared with the one before it under one name. A name that ends in `@` and a number
(`alibi@2`) is one of several trainings of a recipe, so `alibi@1`, `alibi@2` and an `alibi` of a second baseline are
replicates of `alibi`.

A row of a run answers for the row of the same name. It answers for other trainings of its recipe only where it is a
new training: a numbered one, if no baseline has that number; one without a number, in each baseline that has nothing
called just so. What no row answers for is missing, so one of several numbered models cannot vanish unseen.

Rows meet first where every key column is equal, and then, of those left over, with the row of the same model, length
and metric that differs in the fewest ways; what differs makes the two not comparable unless it is allowed. What is
left of the baseline after that is missing from the run, and what is left of the run is new.

Choices:
    * Only `nll_nats` is judged, and under `anchored` the effective length that follows from it (`effective_length.py`).
      Perplexity and bits per byte are functions of the same sums and would say the same thing three times. Of
      algorithmic problems only `accuracy` is, for the same reason; see `che_rows.py`.
    * The name of the corpus and of the split do not join: a local folder has another path on another machine. Text is
      told by the digests of its documents, and text that is not the same leaves nothing in common.
    * What a protocol scores also depends on `bos`, `tail` and `pack`, and where the blocks of `anchored` lie depends on
      the longest length of the run, so these are part of the protocol. They come from the run's `spec.yaml`.
    * Two tokenizers are the same if their fingerprints are, or if they made the same ids of the same text.
    * A baseline that holds one checkpoint twice holds one replicate, not two, and a checkpoint that is one of the
      replicates is compared with itself: whatever differs then is not the training.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd

from lpe_eval.errors import OutputError
from lpe_eval.report.folders.blocks import blocks_of, cell_of
from lpe_eval.report.folders.ppl import Run
from lpe_eval.report.frames import UNFIT
from lpe_eval.table import CHE_METRICS, BlockSum

_JUDGED = "nll_nats"

ASPECTS = ("task", "protocol", "tokenizer", "dtype", "seed")
"""Ways in which two measurements of one model at one length may differ."""


class Judged(NamedTuple):
    """A row that a gate judges, with what it takes to judge it."""

    row: Mapping[str, Any]
    blocks: Sequence[BlockSum]
    settings: Mapping[str, str]
    """The value of each of `ASPECTS`."""
    ids: str | None
    """Hash of the ids of the text, where the run knows it."""
    checkpoint: str | None
    """Digest of the checkpoint."""
    source: str
    """What the run it comes from is called."""
    direction: float | None = None
    """1 where more is worse, -1 where less is; None is -1 for answers to problems and 1 for anything else."""
    corpus: Mapping[str, Any] = MappingProxyType({})
    """What the provenance says of the text."""
    part: str = ""
    """What of a model at a length the row is of, where there are several."""
    scale: float | None = None
    """What a difference is a part of; None is the baseline's own value."""
    by_length: Mapping[int, Sequence[BlockSum]] = MappingProxyType({})
    """Of an effective length, the sums at each length that was measured; empty where there is no value."""

    @property
    def worse_is(self) -> float:
        """1 where more is worse, -1 where less is."""
        if self.direction is not None:
            return self.direction
        return -1.0 if self.row["metric"] in CHE_METRICS else 1.0

    @property
    def recipe(self) -> str:
        """The model without the number of the training."""
        return recipe(str(self.row["model"]))

    @property
    def place(self) -> tuple[str, int, str, str]:
        """What never differs between rows that are compared: for a problem, which one it is as well."""
        metric = str(self.row["metric"])
        problem = str(self.row["task"]) if metric in CHE_METRICS and not self.part else self.part
        return self.recipe, int(self.row["length"]), metric, problem


class Match(NamedTuple):
    """A row of the run and the rows that it is compared with; either may be absent."""

    judged: Judged | None
    references: Sequence[Judged]
    differing: Sequence[str]
    """Which of `ASPECTS` are not the same on both sides."""


def recipe(model: str) -> str:
    """`alibi` of `alibi@2`."""
    found = re.fullmatch(r"(.+)@\d+", model)
    return found[1] if found else model


def judged_rows(run: Run, source: str) -> list[Judged]:
    """The judged rows of a run, in its order.

    Raises:
        OutputError: a file of the run holds what no run would write.
    """
    try:
        blocks = blocks_of(run.by_document)
        rows = [row for row in run.rows.to_dict("records") if row["metric"] == _JUDGED]
        return [judged_row(run, row, blocks.get(cell_of(row), []), source) for row in rows]
    except UNFIT as error:
        raise OutputError(f"the run {source} is damaged ({error}); measure anew") from error


def join(run: Sequence[Judged], baseline: Sequence[Judged]) -> list[Match]:
    """Every row of the run in its order, then the rows of the baseline that the run lacks."""
    groups: dict[tuple, list[Judged]] = {}
    held: dict[str, dict[str, set[str]]] = {}
    for judged in baseline:
        groups.setdefault((judged.place, *judged.settings.values()), []).append(judged)
        held.setdefault(judged.recipe, {}).setdefault(judged.source, set()).add(str(judged.row["model"]))
    at: dict[tuple, list[tuple]] = {}
    for key in groups:
        at.setdefault(key[0], []).append(key)
    matches: dict[int, Match] = {}
    answered: dict[int, set[str]] = {id(judged): set() for judged in baseline}

    def take(number: int, references: Sequence[Judged], differing: Sequence[str]) -> None:
        matches[number] = Match(run[number], _replicates(run[number], references), differing)
        for each in references:
            answered[id(each)].add(str(run[number].row["model"]))

    pairs: list[tuple[list[str], int, list[Judged]]] = []
    for number, judged in enumerate(run):
        model = str(judged.row["model"])
        for key in at.get(judged.place, []):
            mine = [each for each in groups[key] if _answers(model, each, held[judged.recipe])]
            if mine:
                pairs.append((_differing(judged, mine[0]), number, mine))
    for differing, number, mine in pairs:
        if not differing and number not in matches:
            take(number, mine, ())
    exact = {each for each, models in answered.items() if models}
    for differing, number, mine in sorted(pairs, key=lambda pair: len(pair[0])):
        # A row of the baseline is spent on one row of a model, though several replicates may share it.
        model = str(run[number].row["model"])
        free = [each for each in mine if id(each) not in exact and model not in answered[id(each)]]
        if number not in matches and free:
            take(number, free, differing)
    found = [matches.get(number, Match(judged, (), ())) for number, judged in enumerate(run)]
    return found + [
        Match(None, absent, ())
        for group in groups.values()
        for absent in _by_name([each for each in group if not answered[id(each)]], whole=group)
    ]


def _answers(model: str, reference: Judged, held: Mapping[str, set[str]]) -> bool:
    """Whether a row of `model` answers for `reference`, a training of its recipe.

    Args:
        model: the row's model.
        reference: a row of a baseline.
        held: the models of the recipe that each baseline has.
    """
    if reference.row["model"] == model:
        return True
    numbered = recipe(model) != model
    return not any(model in names for source, names in held.items() if numbered or source == reference.source)


def _by_name(absent: Sequence[Judged], whole: Sequence[Judged]) -> list[list[Judged]]:
    """Missing rows, one for each model; one for the recipe where none of its trainings is there."""
    if len(absent) == len(whole):
        return [list(absent)]
    named: dict[str, list[Judged]] = {}
    for each in absent:
        named.setdefault(str(each.row["model"]), []).append(each)
    return list(named.values())


def judged_row(run: Run, row: Mapping[Any, Any], blocks: Sequence[BlockSum], source: str) -> Judged:
    """One row of a run as a gate judges it."""
    model = run.provenance.get("models", {}).get(row["model"], {})
    settings = {
        "task": f"{row['task']}, version {row['task_version']}",
        "protocol": _protocol(row, run.spec),
        "tokenizer": str(model.get("tokenizer_fingerprint"))[:16],
        "dtype": str(row["dtype"]),
        "seed": str(row["seed"]),
    }
    plain = {str(name): None if _absent(value) else value for name, value in row.items()}
    ids, checkpoint = (None if model.get(name) is None else str(model[name]) for name in ("ids_fingerprint", "digest"))
    corpus = run.provenance.get("corpus", {})
    return Judged(plain, blocks, settings, ids, checkpoint, source, corpus=corpus)


def _differing(one: Judged, other: Judged) -> list[str]:
    same_ids = one.ids is not None and one.ids == other.ids
    return [
        aspect
        for aspect in ASPECTS
        if one.settings[aspect] != other.settings[aspect] and not (aspect == "tokenizer" and same_ids)
    ]


def _replicates(judged: Judged, references: Sequence[Judged]) -> list[Judged]:
    """Those that `judged` is compared with: itself where it is one of them, else all that differ."""
    itself = [each for each in references if judged.checkpoint is not None and each.checkpoint == judged.checkpoint]
    if itself:
        return itself[:1]
    distinct: dict[Any, Judged] = {}
    for number, each in enumerate(references):
        distinct.setdefault(number if each.checkpoint is None else each.checkpoint, each)
    return list(distinct.values())


def _protocol(row: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    parts = [str(row["protocol"])]
    if not _absent(row["stride"]) and row["stride"] != row["length"]:
        parts.append(f"stride {row['stride']}")
    parts += [f"{name} {spec[name]}" for name in ("bos", "tail") if name in spec]
    if spec.get("pack"):
        parts.append("packed")
    if str(row["protocol"]).startswith("anchored") and spec.get("lengths"):
        parts.append(f"placed by length {max(spec['lengths'])}")
    return ", ".join(parts)


def _absent(value: Any) -> bool:
    return value is None or value is pd.NA
