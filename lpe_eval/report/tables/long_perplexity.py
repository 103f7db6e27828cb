"""The table of perplexities over key tokens for the screen, and how they were chosen, in a sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

from lpe_eval.report.tables.ppl import perplexity_table
from lpe_eval.screen import Table, counted

_TITLES = {
    "long_perplexity": "perplexity of key tokens",
    "released_perplexity": "perplexity as LongPPL's code weighs documents",
}


def long_tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """One table for each metric of `long_perplexity.csv`; none where there is no row.

    Args:
        rows: with the columns of `text_tables.LONG_PERPLEXITY`, missing values None.
    """
    found = []
    for metric, title in _TITLES.items():
        own = [row for row in rows if row["metric"] == metric]
        if own:
            shown = perplexity_table(own, metric)
            said = f"{title}; {_counts(own)}" if metric == "long_perplexity" else title
            found.append(shown._replace(title=title, below=[*shown.below[:-1], said]))
    return found


def told_key_tokens(asked: Mapping[str, Any] | None, lengths: Sequence[int]) -> str:
    """How key tokens were chosen, in a few words; "" where none were."""
    if not asked or not lengths:
        return ""
    if str(asked["by"]).startswith("spans:"):
        return f"{asked['by']}"
    short = asked.get("short") or min(lengths)
    gain, loss = asked.get("gain", 2.0), asked.get("loss", 2.0)
    return f"chosen by {asked['by']}: {gain:g} nats gained from {short} to {max(lengths)}, and below {loss:g} there"


def _counts(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many key tokens there are, of how many targets; of several models the fewest and the most."""
    counts = [(row["n_tokens"], row["n_targets"]) for row in rows if row["status"] in ("ok", "error")]
    if not counts:
        return "there is no key token"
    (few, _), (many, _) = min(counts), max(counts)
    among = counted(max(targets for _, targets in counts), "scored token")
    return f"{few:,} of {among} for each value" if few == many else f"{few:,} to {many:,} of {among} for each value"
