"""The page of a report: one file that opens without a network or a server, and asks for nothing.

Choices:
    * The page forbids everything that is not in it: a content security policy allows two scripts, by their hashes,
      and no address. A name that were markup after all could neither run nor fetch anything.
    * Everything but the charts is plain HTML, so the page reads without JavaScript too.
    * It holds no time of its own, so the same runs give the same bytes.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from importlib import resources

from lpe_eval.report.page.chart import chart_html
from lpe_eval.report.page.html_tables import facts_html, heat_html, stored_html, table_html
from lpe_eval.report.page.parts import Chart, HeatMap, Judgement, KindPart, RunPart
from lpe_eval.report.page.safe import escaped, escaped_lines
from lpe_eval.screen import counted

_OPEN_ROWS = 30
"""Stored rows up to which they are shown at once."""


def page(kinds: Sequence[KindPart], library: str) -> bytes:
    """The file.

    Args:
        kinds: what was run, in the order of the page.
        library: the script of the charts; "" where there is none.
    """
    style, own = _asset("page.css"), _asset("page.js")
    scripts = [script for script in (library, own) if script]
    title = f"{', '.join(run.label for kind in kinds for run in kind.runs)}: lpe-eval report"
    policy = f"default-src 'none'; script-src {' '.join(map(_allowed, scripts))}; style-src 'unsafe-inline'; "
    policy += "base-uri 'none'; form-action 'none'"
    body = "".join(_kind(kind, f"k{place}") for place, kind in enumerate(kinds))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escaped(policy)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<meta name="referrer" content="no-referrer"><title>{escaped(title)}</title><style>{style}</style></head>'
        f'<body><a class="skip" href="#main">Skip to the results</a>{_header(kinds)}<main id="main">{body}</main>'
        "<footer>Made by lpe-eval. Numbers in tables are rounded; the stored rows have every digit.</footer>"
        f"{''.join(f'<script>{script}</script>' for script in scripts)}</body></html>\n"
    ).encode("utf-8", "backslashreplace")


def _header(kinds: Sequence[KindPart]) -> str:
    runs = [(kind, run) for kind in kinds for run in kind.runs]
    names = "".join(f"<li><b>{escaped(run.label)}</b> {escaped(kind.title)}</li>" for kind, run in runs)
    judged = "".join(_banner(run.judgement) for _, run in runs if run.judgement is not None)
    links = "".join(
        f"<div>{''.join(_link(*each) for each in _anchors(kind, f'k{place}', len(kinds) > 1))}</div>"
        for place, kind in enumerate(kinds)
    )
    return (
        f'<header><p class="brand">lpe-eval report</p><h1>What happens when the text gets longer</h1>'
        f'<ul class="runs">{names}</ul>{judged}<nav aria-label="Contents">{links}</nav></header>'
    )


def _link(anchor: str, text: str) -> str:
    return f'<a href="#{escaped(anchor)}">{escaped(text)}</a>'


def _banner(judgement: Judgement) -> str:
    kind, mark = ("passes", "✓") if judgement.passes else ("fails", "✗")
    return f'<p class="banner {kind}"><b>{mark}</b> {escaped(judgement.outcome)}</p>'


def _anchors(kind: KindPart, place: str, named: bool) -> Iterator[tuple[str, str]]:
    if named or len(kind.runs) > 1:
        yield place, _heading(kind)
    else:
        yield f"{place}-measured", "What was measured"
    if kind.figures:
        yield f"{place}-figures", "Figures"
    for number, run in enumerate(kind.runs):
        yield f"{place}-r{number}", "Tables" if len(kind.runs) == 1 else run.label
    if len(kind.runs) == 1 and not named:
        run = kind.runs[0]
        if run.judgement is not None:
            yield f"{place}-r0-verdicts", "Verdicts"
        yield from ((f"{place}-r0-{name.lower()}", name) for name in ("Cost", "Provenance", "Citations"))


def _heading(kind: KindPart) -> str:
    return kind.title[:1].upper() + kind.title[1:]


def _kind(kind: KindPart, place: str) -> str:
    several = len(kind.runs) > 1
    measured = "".join(
        (f"<h4>{escaped(run.label)}</h4>" if several else "") + facts_html(run.measured) for run in kind.runs
    )
    figures = "".join(_figure(figure, f"{place}-f{number}") for number, figure in enumerate(kind.figures))
    runs = "".join(_run(run, f"{place}-r{number}", several) for number, run in enumerate(kind.runs))
    return (
        f'<section class="kind" id="{place}"><h2>{escaped(_heading(kind))}</h2>'
        f'<section id="{place}-measured"><h3>What was measured</h3>{measured}</section>'
        + (f'<section id="{place}-figures"><h3>Figures</h3>{figures}</section>' if figures else "")
        + f"{runs}</section>"
    )


def _figure(figure: Chart | HeatMap, place: str) -> str:
    return chart_html(figure, place) if isinstance(figure, Chart) else heat_html(figure)


def _run(run: RunPart, place: str, several: bool) -> str:
    parts = [
        f'<section id="{place}">' + (f'<h3 class="of-run">{escaped(run.label)}</h3>' if several else ""),
        f"<h3>Tables</h3>{''.join(map(table_html, run.values))}",
    ]
    if run.stored is not None and run.stored.rows:
        rows = counted(len(run.stored.rows), "stored row")
        opened = " open" if len(run.stored.rows) <= _OPEN_ROWS else ""
        parts.append(
            f"<details{opened}><summary>{escaped(rows)}, with every digit</summary>{stored_html(run.stored)}</details>"
        )
    parts.append("</section>")
    if run.judgement is not None:
        judged = run.judgement
        notes = "".join(f"<li>{escaped(line)}</li>" for line in judged.notes)
        parts.append(
            f'<section id="{place}-verdicts"><h3>Verdicts</h3>{_banner(judged)}'
            f'{table_html(judged.table, verdicts=True)}<ul class="notes">{notes}</ul></section>'
        )
    parts.append(f'<section id="{place}-cost"><h3>Cost</h3>{facts_html(run.cost)}')
    if run.costs is not None and run.costs.rows:
        cells = counted(len(run.costs.rows), "cell")
        parts.append(f"<details><summary>{escaped(cells)}, one by one</summary>{stored_html(run.costs)}</details>")
    first, *tables = run.provenance
    parts.append(
        f'</section><section id="{place}-provenance"><h3>Provenance</h3>{facts_html(first)}'
        f"{''.join(map(table_html, tables))}</section>"
    )
    uncited = "".join(f"<li>{escaped(line)}</li>" for line in run.uncited)
    parts.append(
        f'<section id="{place}-citations"><h3>Citations</h3><pre tabindex="0">{escaped_lines(run.citations)}</pre>'
        f'<ul class="notes">{uncited}</ul></section>'
    )
    return "".join(parts)


def _asset(name: str) -> str:
    return resources.files("lpe_eval.report.page").joinpath(name).read_text(encoding="utf-8")


def _allowed(script: str) -> str:
    # A browser hashes what stands between the tags, with its line ends as they are.
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
