"""The table of a training for the screen: its validation losses."""

from collections.abc import Mapping, Sequence

from lpe_eval.screen import Table, listing, number

_COLUMNS = ("step", "train_nll_nats", "valid_nll_nats", "seconds")


def losses(log: Sequence[Mapping[str, str | None]]) -> Table:
    """The losses where they were validated: at most ten steps, the last one among them.

    Args:
        log: lines of `training.csv`, as text.

    Raises:
        ValueError: a line holds no number where one belongs.
    """
    valid = [line for line in log if line.get("valid_nll_nats")]
    kept = sorted({round(place * (len(valid) - 1) / 9) for place in range(10)}) if valid else []
    shown = [[valid[place].get(column) or "nan" for column in _COLUMNS] for place in kept]
    return listing("losses", _COLUMNS, [[step, *(number(float(each)) for each in rest)] for step, *rest in shown])
