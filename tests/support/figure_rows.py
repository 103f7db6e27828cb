"""Tables that figures are drawn from, and what a figure shows, read back."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lpe_eval import table
from lpe_eval.report.frames import typed_frame

LENGTHS = (128, 512, 2048, 16384)


def rows_of(
    curves: dict[str, list[float]], protocols=("anchored",), lengths=LENGTHS, train=(512,), **facts
) -> pd.DataFrame:
    records = []
    for place, (model, values) in enumerate(curves.items()):
        for protocol in protocols:
            for length, value in zip(lengths, values, strict=True):
                row = dict.fromkeys((column.name for column in table.ROWS), None)
                row.update(
                    run="r", model=model, protocol=protocol, length=length, train_length=train[place % len(train)]
                )
                row.update(ci_low=value * 0.95, ci_high=value * 1.05, status="ok", task="custom", seed=1, **facts)
                for metric, number in (("nll_nats", 1.0), ("perplexity", value)):
                    row.update(metric=metric, value=number)
                    records.append(list(row.values()))
    return typed_frame(table.ROWS, records)


def positions_of(models: list[str], lengths=(1024, 2048), protocols=("anchored",), count=1000) -> pd.DataFrame:
    records = [
        ["r", model, protocol, length, None, start, 2 * start - 1, (3.0 + place + 1 / start) * count, count]
        for place, model in enumerate(models)
        for protocol in protocols
        for length in lengths
        for start in (1, 2, 4, 256, length // 2)
    ]
    return typed_frame(table.BY_POSITION, records)


def panels_of(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_title()]


def curves_of(axes: Axes) -> list[tuple[list[float], list[float]]]:
    found = [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in axes.lines]
    return [
        (x, y) for (x, y), line in zip(found, axes.lines, strict=True) if line.get_linestyle() != "None" and y != [0, 1]
    ]


def triangles_of(axes: Axes) -> list[tuple[float, float]]:
    lines = [line for line in axes.lines if line.get_linestyle() == "None"]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines]


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]
