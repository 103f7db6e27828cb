"""The tables of regret and of shares of the gain, where the best possible guess was measured beside the models."""

from collections.abc import Mapping, Sequence
from typing import Any

from lpe_eval.report.tables.ppl import perplexity_table
from lpe_eval.screen import Table
from lpe_eval.table import GAIN_SHARE, REGRET


def regret_tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """A table of regret, and one of shares; none where nobody knows the optimum.

    Args:
        rows: rows with the columns of `rows.csv`; missing is None, NaN or pandas' NA.
    """
    found: list[Table] = []
    if any(row["metric"] == REGRET for row in rows):
        below = "nats per token above the optimum on the same targets; ± is one standard error of this difference"
        shown = perplexity_table(rows, REGRET)
        found.append(shown._replace(title="regret", below=[f"{below}; bold is the lowest of its column"]))
    shares = [row for row in rows if row["metric"] == GAIN_SHARE]
    if shares:
        below = f"what a model gained over what the optimum gained from {_from(shares)}: 1 is all of it, 0 is nothing"
        shown = perplexity_table(shares, GAIN_SHARE, best_of=max)
        found.append(shown._replace(title="share", below=[f"{below}; bold is the highest of its column"]))
    return found


def _from(shares: Sequence[Mapping[str, Any]]) -> str:
    """From which length the gain is reckoned; with the models where these differ."""
    models: dict[str, dict[str, None]] = {}
    for row in shares:
        if row["status"] == "ok":
            length = str(row["note"]).partition(";")[0].removeprefix("of the gain from ")
            models.setdefault(length, {})[row["model"]] = None
    if len(models) < 2:
        return "".join(models)
    return ", ".join(f"{length} ({', '.join(names)})" for length, names in models.items())
