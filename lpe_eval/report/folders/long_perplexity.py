"""Perplexity of key tokens, from the losses of single tokens that a run kept: `long_perplexity.csv`.

`numbers/key_tokens.py` says what a key token is. For each model and protocol they are chosen once, by the losses at the
short and at the longest length, and then every length is told on these same targets. Where a model chooses (itself, or
one for all), `key_tokens.jsonl` keeps its spans, which later runs can be given.

Memory holds a document of two cells at a time.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from lpe_eval.plain import printable
from lpe_eval.report.folders.ppl import Run
from lpe_eval.report.folders.tokens import DocumentTokens, read_tokens
from lpe_eval.report.frames import csv_bytes, read_csv, records
from lpe_eval.report.numbers.by_length import Sweep
from lpe_eval.report.numbers.key_tokens import chosen, inside, merged
from lpe_eval.report.numbers.statistics import summarise
from lpe_eval.table import BLOCK_TARGETS, BlockSum, CellKey, Facts, Measurement
from lpe_eval.text_tables import DERIVED, KEY_SPANS

NAME = "long_perplexity.csv"

TokensOf = Callable[[CellKey], Path]
Spans = Int[np.ndarray, "m 3"]
_Document = tuple[str, str]


class _Choice(NamedTuple):
    """What a model chose, or what was stored.

    Attributes:
        places: by document, the places of its key tokens; None for stored spans, which have none.
        spans: by digest.
        tokenizer: of the model.
        why_not: why nothing could be chosen.
    """

    places: Mapping[_Document, Int[np.ndarray, " n"]] | None
    spans: Mapping[str, Spans]
    tokenizer: str = ""
    why_not: str = ""


def long_perplexity_files(
    run: Run, found: Iterable[Sweep], tokens_of: TokensOf, stored: Mapping[str, Spans] | None
) -> dict[str, bytes]:
    """The files by name; none where the run asks for no key tokens.

    Args:
        run: its tables.
        found: the models whose lengths scored the same text.
        tokens_of: the file with the losses of the targets of a cell.
        stored: the spans that the run was given, by digest of their document; None where a model chooses.

    Raises:
        OutputError: a file is missing or damaged.
    """
    asked = run.spec.get("key_tokens")
    if not asked:
        return {}
    made = [each for each in found if each.protocol.startswith(("anchored", "sliding"))]
    choices: dict[int, _Choice] = {}
    lines: list[str] = []
    rows: list[dict[str, Any]] = []
    for each in made:
        if stored is not None:
            choice = _Choice(None, stored)
        else:
            chooser = _chooser(each, made, asked["by"])
            if id(chooser) not in choices:
                choices[id(chooser)] = _choose(chooser, run, asked, tokens_of)
                lines += [] if chooser is None else _stored_lines(chooser, choices[id(chooser)])
            choice = choices[id(chooser)]
        rows += _rows(each, choice, run, tokens_of)
    content = csv_bytes(DERIVED[NAME], [[row[column.name] for column in DERIVED[NAME]] for row in rows])
    spans = "".join(f"{line}\n" for line in lines).encode()
    return {NAME: content, **({KEY_SPANS: spans} if stored is None else {})}


def read_long_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run, missing values None; empty where it has none.

    Raises:
        OutputError: the file is damaged.
    """
    return records(read_csv(folder / NAME, DERIVED[NAME])) if (folder / NAME).exists() else []


def _chooser(sweep: Sweep, made: Sequence[Sweep], by: str) -> Sweep | None:
    """Whose losses choose for a model; None where that one has no such protocol."""
    name = by.partition(":")[2] if by.startswith("model:") else sweep.model
    alike = name, sweep.protocol, sweep.longest["stride"]
    return next((each for each in made if (each.model, each.protocol, each.longest["stride"]) == alike), None)


def _choose(sweep: Sweep | None, run: Run, asked: Mapping[str, Any], tokens_of: TokensOf) -> _Choice:
    if sweep is None:
        return _Choice({}, {}, why_not="the model that chooses key tokens was not measured under this protocol")
    short, long = asked.get("short") or min(sweep.rows), max(sweep.rows)
    for length in (short, long):
        if length not in sweep.blocks:
            return _Choice({}, {}, why_not=f"{sweep.model} chooses the key tokens and has no value at {length}")
    places: dict[_Document, Int[np.ndarray, " n"]] = {}
    spans: dict[str, Spans] = {}
    cells = [read_tokens(tokens_of(_key(sweep, length))) for length in (short, long)]
    for one, other in _pairs(*cells):
        _, first, second = np.intersect1d(one.position, other.position, assume_unique=True, return_indices=True)
        key = chosen(one.loss[first], other.loss[second], asked["gain"], asked["loss"])
        places[other.document, other.digest] = other.position[second][key]
        found = merged(other.byte_from[second][key], other.n_bytes[second][key])
        if len(found):
            spans[other.digest] = found[:, [0, 0, 1]]
    return _Choice(places, spans, _tokenizer(run, sweep.model))


def _pairs(
    one: Iterator[DocumentTokens], other: Iterator[DocumentTokens]
) -> Iterator[tuple[DocumentTokens, DocumentTokens]]:
    """The documents that two cells of one model both have; they come in one order."""
    held: dict[_Document, DocumentTokens] = {}
    for wanted in other:
        name = wanted.document, wanted.digest
        while name not in held and (found := next(one, None)) is not None:
            held[found.document, found.digest] = found
        if name in held:
            yield held[name], wanted
            held.clear()


def _stored_lines(sweep: Sweep, choice: _Choice) -> Iterator[str]:
    for document, digest in choice.places or {}:
        if digest in choice.spans:
            spans = choice.spans[digest][:, [0, 2]].tolist()
            named = {"model": sweep.model, "protocol": sweep.protocol, "document": document, "digest": digest}
            yield printable(json.dumps({**named, "bytes": spans}, ensure_ascii=False))


def _rows(sweep: Sweep, choice: _Choice, run: Run, tokens_of: TokensOf) -> Iterator[dict[str, Any]]:
    asked = run.spec["key_tokens"]
    for length, row in sweep.rows.items():
        key, documents = _key(sweep, length), []
        blocks: list[BlockSum] = []
        targets = 0
        if row["status"] in ("ok", "error"):
            for each in read_tokens(tokens_of(key)):
                targets += len(each.position)
                documents.append(_weighed(each))
                if not choice.why_not:
                    blocks += _sums(each, _is_key(each, choice, _tokenizer(run, sweep.model)))
        more = {"n_targets": targets, "key_tokens": asked["by"]}
        why = choice.why_not or _no_key_token(asked, sweep)
        yield {**_row(row, key, blocks, why, run), "metric": "long_perplexity", **more}
        if asked["weighting"] == "released":
            found = _row(row, key, documents, "no target is scored", run)
            yield {**found, "metric": "released_perplexity", "n_tokens": targets, **more}


def _is_key(each: DocumentTokens, choice: _Choice, tokenizer: str) -> Bool[np.ndarray, " n"]:
    if choice.places is not None and tokenizer == choice.tokenizer:
        return np.isin(each.position, choice.places.get((each.document, each.digest), ()), assume_unique=True)
    spans = choice.spans.get(each.digest)
    if spans is None:
        return np.zeros(len(each.position), dtype=bool)
    return inside(each.byte_from, each.n_bytes, spans)


def _sums(each: DocumentTokens, key: Bool[np.ndarray, " n"]) -> Iterator[BlockSum]:
    """Sums over the key tokens of a document, block by block."""
    numbers = each.position // BLOCK_TARGETS
    for number in np.unique(numbers[key]):
        here = key & (numbers == number)
        nats = each.loss[here]
        wrong = int((~np.isfinite(nats)).sum())
        sums = float(nats.sum()), int(here.sum()), int(each.n_bytes[here].sum()), wrong
        yield BlockSum(each.document, each.digest, int(number), *sums)


def _weighed(each: DocumentTokens) -> BlockSum:
    """A document as the released code weighs it: the mean over its targets, with a weight of one more."""
    count, wrong = len(each.loss), int((~np.isfinite(each.loss)).sum())
    return BlockSum(each.document, each.digest, 0, float(each.loss.mean()) * (count + 1), count + 1, 0, wrong)


def _row(row: Mapping[str, Any], key: CellKey, blocks: Sequence[BlockSum], why_none: str, run: Run) -> dict[str, Any]:
    """A row with the values of some sums, and with everything else of the cell's own row.

    Args:
        row: of the cell.
        key: which cell.
        blocks: the sums.
        why_none: why there are none although the cell has a value.
        run: the run.
    """
    status, note = str(row["status"]), str(row["note"])
    if status in ("ok", "error"):
        # Whether these targets have finite losses is told by their own sums.
        status, note = ("ok", note if status == "ok" else "") if blocks else ("n/a", why_none)
    facts = Facts(**{field.name: row[field.name] for field in fields(Facts)})
    own = tuple(blocks) if status == "ok" else ()
    measured = Measurement(key, facts, str(row["attention"]), own, (), None, status, note)
    found = summarise(measured, str(row["run"]), run.spec["seed"])
    return next(each for each in found if each["metric"] == "perplexity")


def _no_key_token(asked: Mapping[str, Any], sweep: Sweep) -> str:
    if str(asked["by"]).startswith("spans:"):
        return "no scored target lies in a stored span"
    short, long = asked.get("short") or min(sweep.rows), max(sweep.rows)
    return (
        f"no target is a key token: none gains more than {asked['gain']:g} nats from {short} to {long} tokens and "
        f"costs less than {asked['loss']:g} there"
    )


def _key(sweep: Sweep, length: int) -> CellKey:
    return CellKey(sweep.model, sweep.protocol, length, sweep.rows[length]["stride"])


def _tokenizer(run: Run, model: str) -> str:
    known = run.provenance.get("models", {}).get(model) or {}
    return str(known.get("tokenizer_fingerprint", ""))
