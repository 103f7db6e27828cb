"""Rows of perplexity, and their table as the console shows it."""

from lpe_eval import console, table
from lpe_eval.report.tables.ppl import perplexity_table


def show_perplexity(rows: list[dict], metric: str = "perplexity") -> None:
    console.show(perplexity_table(rows, metric))


def row_of(model: str, length: int, value: float, protocol: str = "anchored", status: str = "ok", **other) -> dict:
    row = dict.fromkeys((column.name for column in table.ROWS), None)
    row.update(model=model, encoding=f"{model} encoding", length=length, value=value, protocol=protocol, status=status)
    row.update(metric="perplexity", stderr=value / 100, ci_method="bootstrap-documents-1000", corpus="novels", note="")
    row.update(split="test", n_tokens=262144, n_documents=32, train_length=512, run="r", **other)
    return row


def rows_of(lengths=(128, 2048), protocols=("anchored",)) -> list[dict]:
    return [
        row_of(model, length, value * (1 + length / 10000), protocol)
        for model, value in (("alibi", 5.123), ("rope", 6.0))
        for protocol in protocols
        for length in lengths
    ]
