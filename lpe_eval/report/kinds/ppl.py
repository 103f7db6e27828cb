"""Perplexity of language models at several lengths."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lpe_eval import table
from lpe_eval.errors import OutputError
from lpe_eval.report.figures.ppl import draw_perplexity
from lpe_eval.report.folders.derived import effective_rows, fit_rows, sweeps_of
from lpe_eval.report.folders.folder import Layout
from lpe_eval.report.folders.long_perplexity import read_long_rows
from lpe_eval.report.folders.ppl import LAYOUT, Run, read_run
from lpe_eval.report.frames import UNFIT, csv_bytes, read_bytes, records, typed_frame
from lpe_eval.report.gate.damage import refuse_damaged_run
from lpe_eval.report.gate.effective_length import length_rows
from lpe_eval.report.gate.joining import Judged, judged_rows
from lpe_eval.report.kind import Found, Kind
from lpe_eval.report.numbers.by_length import is_anchored
from lpe_eval.report.numbers.tokenizers import n_tokenizers
from lpe_eval.report.page.of_ppl import perplexity_charts
from lpe_eval.report.page.parts import Chart, HeatMap
from lpe_eval.report.sources import (
    Source,
    sources_of_key_tokens,
    sources_of_methods,
    sources_of_protocols,
    sources_of_text,
)
from lpe_eval.report.stored_rows import Stored
from lpe_eval.report.tables.far_context import effective_cells, effective_sentences, fit_table
from lpe_eval.report.tables.long_perplexity import long_tables, told_key_tokens
from lpe_eval.report.tables.ppl import perplexity_table
from lpe_eval.report.tables.provenance import corpus, several
from lpe_eval.report.tables.regret import regret_tables
from lpe_eval.screen import Table, counted
from lpe_eval.spec.ppl_spec import PerplexitySpec


class Perplexity(Kind):
    """See the module's docstring."""

    name = "ppl"
    title = "perplexity"
    spec = PerplexitySpec
    columns = table.ROWS
    worse_is = {"nll_nats": 1}

    @classmethod
    def direction(cls, metric: str) -> int | None:
        return -1 if metric == table.GAIN_SHARE else 1

    @classmethod
    def table(cls) -> str:
        return "rows.csv"

    @classmethod
    def layout(cls) -> Layout:
        return LAYOUT

    @classmethod
    def baseline(cls, found: Found) -> dict[str, bytes]:
        read_run(found.path)
        kept = {name: read_bytes(found.path / name) for name in ("rows.csv", "by_document.parquet")}
        # What a cell cost, and curves over context, belong to the run; a run has the files all the same.
        positions = typed_frame(table.BY_POSITION, []).to_parquet(index=False)
        return {**kept, "cost.csv": csv_bytes(table.COST, []), "by_position.parquet": positions}

    @classmethod
    def cells(cls, found: Found) -> tuple[Sequence[str], int]:
        many = [len(found.spec[name]) for name in ("models", "protocols", "lengths")]
        best = {row["model"] for row in found.rows if row["encoding"] == table.OPTIMUM}
        return ("model", "protocol", "length", "stride"), (many[0] + len(best)) * many[1] * many[2]

    @classmethod
    def about(cls, found: Found) -> list[tuple[str, str]]:
        spec, known = found.spec, found.provenance
        return [
            ("task", _task(spec, known)),
            *corpus(known.get("corpus", {})),
            ("protocols", ", ".join(_protocol(each) for each in spec.get("protocols", []))),
            ("lengths", several(spec.get("lengths", []))),
            ("text budget", f"{spec.get('max_tokens', 0):,} tokens at every length{_selected(known)}"),
            ("key tokens", told_key_tokens(spec.get("key_tokens"), spec.get("lengths", []))),
            ("windows", f"BOS {spec.get('bos')}, tail {spec.get('tail')}, {'' if spec.get('pack') else 'not '}packed"),
        ]

    @classmethod
    def values(cls, found: Found) -> list[Table]:
        if not found.rows:
            return []
        several_tokenizers = n_tokenizers([found.provenance])
        # A large run is shown from its rows alone, unless its sums are needed.
        anchored = any(is_anchored(str(row["protocol"])) for row in found.rows)
        effective = _where_possible(found, lambda run: effective_rows(sweeps_of(run))) if anchored else []
        metric = "perplexity" if several_tokenizers < 2 else "bits_per_byte"
        shown = perplexity_table(found.rows, metric, effective_cells(effective))
        below = [*shown.below, *(effective_sentences(effective) if effective else [])]
        if several_tokenizers > 1:
            # A token of one model is not one of another, so losses per token have no common unit.
            below.append(
                f"the models have {several_tokenizers} different tokenizers, so perplexity per token does not compare "
                "between them; the table shows bits per byte of text, and rows.csv has both"
            )
        return [shown._replace(below=below), *regret_tables(found.rows), *long_tables(read_long_rows(found.path))]

    @classmethod
    def details(cls, found: Found) -> list[Table]:
        return fit_table(_where_possible(found, fit_rows, by_document=False))

    @classmethod
    def draw(cls, folders: Sequence[Found], out: Path) -> list[Path]:
        return draw_perplexity([_drawn(each) for each in folders], out)

    @classmethod
    def charts(cls, folders: Sequence[Found]) -> list[Chart | HeatMap]:
        return [*perplexity_charts([_drawn(each) for each in folders])]

    @classmethod
    def costs(cls, found: Found) -> Stored | None:
        cells = read_run(found.path, by_document=False).cost
        return Stored("cost.csv", table.COST, records(cells))

    @classmethod
    def judged_rows(cls, found: Found, source: str) -> list[Judged]:
        run = read_run(found.path)
        judged = judged_rows(run, source)
        refuse_damaged_run(run, judged, source)
        return [*judged, *length_rows(run, source)]

    @classmethod
    def sources(cls, found: Found) -> Iterator[Source]:
        yield from sources_of_methods(found.spec, found.provenance, found.rows)
        yield from sources_of_text(found.spec)
        yield from sources_of_protocols(found.spec)
        yield from sources_of_key_tokens(found.spec)


def _where_possible(
    found: Found, make: Callable[[Run], Iterable[dict[str, Any]]], by_document: bool = True
) -> list[dict[str, Any]]:
    """What is derived from the tables of a run; nothing where no more than its rows is there, or they are damaged."""
    try:
        return list(make(read_run(found.path, by_document)))
    except (OutputError, *UNFIT):
        return []


def _drawn(found: Found) -> Run:
    """The run of a folder with the models of its rows, which may have been chosen."""
    run, models = read_run(found.path), [row["model"] for row in found.rows]
    kept = [frame[frame["model"].isin(models)] for frame in (run.rows, run.by_document, run.by_position)]
    return run._replace(rows=kept[0], by_document=kept[1], by_position=kept[2])


def _task(spec: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    name = f"{spec.get('task')} v{spec.get('task_version')}" if spec.get("task_version") else str(spec.get("task"))
    found = (known.get("task") or {}).get("fingerprint")
    return f"{name}, fingerprint {found[:16]}" if found else name


def _selected(known: Mapping[str, Any]) -> str:
    texts = {facts.get("text_fingerprint"): facts for facts in (known.get("models") or {}).values()}
    sentence = [
        f"{counted(len(facts.get('documents', [])), 'document')}, fingerprint {str(fingerprint)[:16]}"
        for fingerprint, facts in texts.items()
    ]
    return f"; {'; '.join(sentence)}" if sentence else ""


def _protocol(each: Mapping[str, Any]) -> str:
    numbers = [f"{name} {each[name]}" for name in ("stride", "last_k") if each.get(name) is not None]
    return f"{each.get('name')}{' (' + ', '.join(numbers) + ')' if numbers else ''}"
