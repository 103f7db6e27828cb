"""Which row of a run is compared with which rows of a baseline, and what is different about how they were measured.

A model is its name: a release is compared with the one before it under one name. A name that ends in `@` and a number
(`alibi@2`) is one of several trainings of a recipe, so `alibi@1`, `alibi@2` and an `alibi` of a second baseline are
replicates of `alibi`.

Rows meet first where every key column is equal, and then, of those left over, with the row of the same model, length
and metric that differs in the fewest ways; what differs makes the two not comparable unless it is allowed. What is
left of the baseline after that is missing from the run, and what is left of the run is new.

Choices:
    * Only `nll_nats` is judged. Perplexity and bits per byte are functions of the same sums and would say the same
      thing three times. Of algorithmic problems only `accuracy` is, for the same reason; see `che_entries.py`.
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
from typing import Any, NamedTuple

import pandas as pd

from lpe_eval.errors import OutputError
from lpe_eval.report.folders.ppl import Run
from lpe_eval.report.frames import UNFIT
from lpe_eval.table import CHE_METRICS, BlockSum

WORSE_IS: dict[str, float] = {"nll_nats": 1.0, "accuracy": -1.0}
"""Metrics that are judged: 1 where more is worse, -1 where less is."""

ASPECTS = ("task", "protocol", "tokenizer", "dtype", "seed")
"""Ways in which two measurements of one model at one length may differ."""


class Entry(NamedTuple):
    """One judged row and what is needed to judge it."""

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

    @property
    def recipe(self) -> str:
        """The model without the number of the training."""
        return recipe(str(self.row["model"]))

    @property
    def place(self) -> tuple[str, int, str, str]:
        """What never differs between rows that are compared: for a problem, which one it is as well."""
        metric = str(self.row["metric"])
        problem = str(self.row["task"]) if metric in CHE_METRICS else ""
        return self.recipe, int(self.row["length"]), metric, problem


class Match(NamedTuple):
    """A row of the run and the rows that it is compared with; either may be absent."""

    entry: Entry | None
    references: Sequence[Entry]
    differing: Sequence[str]
    """Which of `ASPECTS` are not the same on both sides."""


def recipe(model: str) -> str:
    """`alibi` of `alibi@2`."""
    found = re.fullmatch(r"(.+)@\d+", model)
    return found[1] if found else model


def entries(run: Run, source: str) -> list[Entry]:
    """The judged rows of a run, in its order.

    Raises:
        OutputError: a file of the run holds what no run would write.
    """
    try:
        blocks = _blocks(run.by_document)
        rows = [row for row in run.rows.to_dict("records") if row["metric"] in WORSE_IS]
        return [_entry(run, row, blocks.get(_cell(row), []), source) for row in rows]
    except UNFIT as error:
        raise OutputError(f"the run {source} is damaged ({error}); measure anew") from error


def join(run: Sequence[Entry], baseline: Sequence[Entry]) -> list[Match]:
    """Every row of the run in its order, then the rows of the baseline that the run lacks."""
    groups: dict[tuple, list[Entry]] = {}
    for entry in baseline:
        groups.setdefault((entry.place, *entry.settings.values()), []).append(entry)
    at: dict[tuple, list[tuple]] = {}
    for key in groups:
        at.setdefault(key[0], []).append(key)
    used: dict[tuple, set[str]] = {key: set() for key in groups}
    matches: dict[int, Match] = {}

    def take(number: int, key: tuple, differing: Sequence[str]) -> None:
        matches[number] = Match(run[number], _replicates(run[number], groups[key]), differing)
        used[key].add(str(run[number].row["model"]))

    pairs: list[tuple[list[str], int, tuple]] = []
    for number, entry in enumerate(run):
        told_apart = [(_differing(entry, groups[key][0]), number, key) for key in at.get(entry.place, [])]
        pairs += told_apart
        same = [key for differing, _, key in told_apart if not differing]
        if same:
            take(number, same[0], ())
    exact = {key for key, models in used.items() if models}
    for differing, number, key in sorted(pairs, key=lambda pair: len(pair[0])):
        # A row of the baseline is spent on one row of a model, though several replicates may share it.
        if number not in matches and key not in exact and str(run[number].row["model"]) not in used[key]:
            take(number, key, differing)
    found = [matches.get(number, Match(entry, (), ())) for number, entry in enumerate(run)]
    return found + [Match(None, groups[key], ()) for key in groups if not used[key]]


def _entry(run: Run, row: Mapping[Any, Any], blocks: Sequence[BlockSum], source: str) -> Entry:
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
    return Entry(plain, blocks, settings, ids, checkpoint, source)


def _differing(one: Entry, other: Entry) -> list[str]:
    same_ids = one.ids is not None and one.ids == other.ids
    return [
        aspect
        for aspect in ASPECTS
        if one.settings[aspect] != other.settings[aspect] and not (aspect == "tokenizer" and same_ids)
    ]


def _replicates(entry: Entry, group: Sequence[Entry]) -> list[Entry]:
    """Those of `group` that `entry` is compared with: itself where it is one of them, else all that differ."""
    itself = [each for each in group if entry.checkpoint is not None and each.checkpoint == entry.checkpoint]
    name = str(entry.row["model"])
    namesakes = [each for each in group if name != entry.recipe and each.row["model"] == name]
    if itself or len(namesakes) == 1:
        return (itself or namesakes)[:1]
    distinct: dict[Any, Entry] = {}
    for number, each in enumerate(group):
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


def _blocks(by_document: pd.DataFrame) -> dict[tuple, list[BlockSum]]:
    found: dict[tuple, list[BlockSum]] = {}
    for record in by_document.to_dict("records"):
        found.setdefault(_cell(record), []).append(
            BlockSum(
                str(record["document"]),
                str(record["digest"]),
                int(record["block"]),
                float(record["nll_nats"]),
                int(record["n_tokens"]),
                int(record["n_bytes"]),
                int(record["n_nonfinite"]),
            )
        )
    return found


def _cell(row: Mapping[Any, Any]) -> tuple[str, str, int, int | None]:
    stride = None if _absent(row["stride"]) else int(row["stride"])
    return str(row["model"]), str(row["protocol"]), int(row["length"]), stride


def _absent(value: Any) -> bool:
    return value is None or value is pd.NA
