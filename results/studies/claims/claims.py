"""The papers' claims judged by what the models of these studies lose, with uncertainty over seeds and over text.

    python results/studies/claims/claims.py      from blocks.parquet: claims.csv, the tables of README.md, the figure

A difference is nats a byte of the first side minus those of the second, on the same targets. Where both sides have
three seeds it is the mean over seeds, each beside its namesake, and its 95 % interval joins Student's interval over
the seeds with the interval over the text (the two are independent, so half widths add as squares). With fewer seeds
the spread of a seed is that of the models of the setting that have three and that hold at this length, pooled: models
that break vary by far more there, and the difference from them is larger still.

A comparison speaks *for* the claim where its whole interval lies below the margin, *against* it where the whole
interval lies above, and is *open* otherwise. The verdict: `reproduced`, all are for; `reproduced in part`, some are;
`contradicted`, none is for and some are against; `not at this scale`, all are open. The rule was written before
`books-128` was measured; that models which break do not count for the pooled spread was added when only `code-512` had
been seen. `dape-beyond` was to be judged under `anchored`, whose first run had too little text to tell anything, and is
judged with windows side by side.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import pandas as pd
import yaml

from lpe_eval.report.numbers.statistics import paired_difference
from lpe_eval.table import BlockSum

HERE = Path(__file__).parent
BLOCKS = HERE / "blocks.parquet"
SETTINGS = {"books-128": 128, "code-512": 512}
"""Training lengths."""
SEEDS = HERE.parent / "released" / "seeds.csv"
"""Of the further seeds of `code-512` only the values are kept."""
STUDENT = {2: 4.303, 4: 2.776, 6: 2.447, 8: 2.306, 10: 2.228, 12: 2.179, 14: 2.145, 16: 2.120}
"""The 97.5 % point of Student's t by degrees of freedom."""
NORMAL = 1.960
BROKEN = 0.3
"""Nats above its loss at the training length from which a model does not hold."""


class Side(NamedTuple):
    """What stands on one side of a comparison."""

    model: str
    multiple: int


class Found(NamedTuple):
    """A comparison as measured: nats a byte, half the width of its 95 % interval, seeds, and what it says."""

    setting: str
    first: Side
    second: Side
    difference: float
    half: float
    seeds: int
    says: str


class Losses:
    """What the models of one setting lose, by model, seed, protocol and length."""

    def __init__(self, table: pd.DataFrame, setting: str) -> None:
        self.setting, self.trained = setting, SETTINGS[setting]
        self._blocks: dict[tuple[str, str, int], dict[int, list[BlockSum]]] = {}
        self.values: dict[tuple[str, str, int], dict[int, float]] = {}
        here = table[table["setting"] == setting]
        for (model, seed, protocol, length), rows in here.groupby(["model", "seed", "protocol", "length"]):
            key = str(model), str(protocol), int(length)
            self._blocks.setdefault(key, {})[int(seed)] = [
                BlockSum("", row.digest, int(row.block), float(row.nll_nats), int(row.n_tokens), int(row.n_tokens), 0)
                for row in rows.itertuples()
            ]
            self.values.setdefault(key, {})[int(seed)] = rows["nll_nats"].sum() / rows["n_tokens"].sum()
        if setting == "code-512":
            for row in pd.read_csv(SEEDS).query("metric == 'nll_nats'").itertuples():
                model, _, seed = str(row.model).rpartition("-seed")
                self.values.setdefault((model, str(row.protocol), int(row.length)), {})[int(seed)] = float(row.value)

    def of(self, side: Side, protocol: str) -> dict[int, float]:
        """Nats a byte by seed; none where it was not measured."""
        return self.values.get((side.model, protocol, side.multiple * self.trained), {})

    def difference(self, first: Side, second: Side, protocol: str) -> tuple[float, float, int] | None:
        """First minus second, half the width of the 95 % interval, and the seeds it rests on."""
        one, other = self.of(first, protocol), self.of(second, protocol)
        seeds = sorted(set(one) & set(other))
        if not seeds:
            return None
        values = [one[seed] - other[seed] for seed in seeds]
        here, there = ((side.model, protocol, side.multiple * self.trained) for side in (first, second))
        common = sorted(set(self._blocks[here]) & set(self._blocks[there]))
        text = NORMAL * fmean(
            paired_difference(self._blocks[here][seed], self._blocks[there][seed]).stderr for seed in common
        )
        own = len(seeds) >= 3
        chance = STUDENT[len(seeds) - 1] * stdev(values) if own else self._chance(first, second, protocol)
        return fmean(values), math.hypot(chance / math.sqrt(len(seeds)), text), len(seeds)

    def _chance(self, first: Side, second: Side, protocol: str) -> float:
        """Student's half width of a difference between two trainings, from the models that have three seeds."""
        variances, freedom = [], []
        for multiple in (first.multiple, second.multiple):
            places = ((multiple, protocol), (multiple, "nonoverlap"), (1, "nonoverlap"))
            known = next(filter(None, (self._spreads(*place) for place in places)))
            variances.append(fmean(known))
            freedom.append(2 * len(known))
        # The same training at two lengths has one seed, so this is too wide for it rather than too narrow.
        return STUDENT[min(freedom)] * math.sqrt(sum(variances))

    def _spreads(self, multiple: int, protocol: str) -> list[float]:
        length, found = multiple * self.trained, []
        for (model, how, at), values in self.values.items():
            inside = self.values.get((model, how, self.trained), values)
            holds = fmean(values.values()) < fmean(inside.values()) + BROKEN
            if (how, at) == (protocol, length) and len(values) >= 3 and holds:
                found.append(stdev(values.values()) ** 2)
        return found


def sides(claim: dict[str, Any]) -> Iterator[tuple[Side, Side]]:
    """The comparisons of a claim."""
    for first, second in claim["pairs"]:
        if "@" in first:
            one, other = (each.split("@") for each in (first, second))
            yield Side(one[0], int(one[1])), Side(other[0], int(other[1]))
            continue
        for multiple in claim["at"]:
            yield Side(first, multiple), Side(second, multiple)


def judged(claim: dict[str, Any], losses: Losses) -> list[Found]:
    """Every comparison of a claim that was measured in one setting."""
    protocol, margin = claim.get("protocol", "nonoverlap"), claim.get("margin", 0.0)
    if not losses.of(next(sides(claim))[0], protocol) and protocol.startswith("anchored"):
        protocol = "nonoverlap"
    found = []
    for first, second in sides(claim):
        measured = losses.difference(first, second, protocol)
        if measured is not None:
            difference, half, seeds = measured
            says = "for" if difference + half < margin else "against" if difference - half > margin else "open"
            found.append(Found(losses.setting, first, second, difference, half, seeds, says))
    return found


def verdict(found: Sequence[Found]) -> str:
    """What all comparisons of a claim say together."""
    says = [each.says for each in found]
    if not says:
        return "not measured"
    if all(each == "for" for each in says):
        return "reproduced"
    if "for" in says:
        return "reproduced in part"
    return "contradicted" if "against" in says else "not at this scale"


def records(claims: Sequence[dict[str, Any]], table: pd.DataFrame) -> pd.DataFrame:
    """A row for each comparison of each claim."""
    every = [Losses(table, setting) for setting in SETTINGS]
    rows = []
    for claim in claims:
        for losses in every:
            found = judged(claim, losses)
            for each in found:
                facts = {"first": each.first.model, "second": each.second.model}
                places = {"at": each.first.multiple * losses.trained, "beside": each.second.multiple * losses.trained}
                measured = {"difference": each.difference, "half_width": each.half, "seeds": each.seeds}
                ends = {"says": each.says, "verdict": verdict(found)}
                rows.append({"claim": claim["claim"], "setting": each.setting, **facts, **places, **measured, **ends})
    return pd.DataFrame(rows)


def claim_table(claims: Sequence[dict[str, Any]], rows: pd.DataFrame) -> str:
    """The claims with a verdict for each setting, in Markdown."""
    lines = ["| claim | there | " + " | ".join(SETTINGS) + " | what would settle it |", "|---|---|" + "---|" * 3]
    for claim in claims:
        cells = []
        for setting in SETTINGS:
            found = rows[(rows["claim"] == claim["claim"]) & (rows["setting"] == setting)]
            if found.empty:
                cells.append("not measured")
                continue
            counts = ", ".join(f"{number} {says}" for says, number in _counts(found["says"]))
            cells.append(f"**{found['verdict'].iloc[0]}**: {counts}")
        said = f"{claim['says']} ({claim['source']})"
        lines.append(f"| {said} | {claim['there']} | {' | '.join(cells)} | {claim['settle']} |")
    return "\n".join(lines)


def _counts(says: pd.Series) -> list[tuple[str, int]]:
    counts = says.value_counts()
    return [(each, int(counts[each])) for each in ("for", "against", "open") if each in counts]


def comparison_tables(claims: Sequence[dict[str, Any]], rows: pd.DataFrame) -> str:
    """Every comparison: a line for each pair, a column for each length."""
    told = []
    for claim in claims:
        mine = rows[rows["claim"] == claim["claim"]]
        for setting, found in mine.groupby("setting", sort=False):
            lengths = sorted(set(found["at"]))
            told += [f"\n**{claim['claim']}**, {setting}, nats a byte", ""]
            told += ["| first minus second | seeds | " + " | ".join(map(str, lengths)) + " |"]
            told += ["|---|---|" + "---|" * len(lengths)]
            for (first, second), pair in found.groupby(["first", "second"], sort=False):
                at = {row.at: row for row in pair.itertuples()}
                cells = [_cell(at[length]) if length in at else "" for length in lengths]
                seeds = ", ".join(map(str, dict.fromkeys(pair["seeds"])))
                told.append(f"| {first} - {second} | {seeds} | {' | '.join(cells)} |")
    return "\n".join(told)


def _cell(row: Any) -> str:
    beside = "" if row.at == row.beside or row.first != row.second else f" from {row.beside}"
    return f"{row.difference:+.3f} ± {row.half_width:.3f}{beside}, {row.says}"


def loss_table(table: pd.DataFrame, setting: str, protocol: str) -> str:
    """The loss of every model at every length, the mean over seeds and their standard deviation."""
    losses = Losses(table, setting)
    here = table[(table["setting"] == setting) & (table["protocol"] == protocol)]
    lengths = sorted(set(here["length"]))

    def loss(model: str) -> float:
        values = losses.values.get((model, protocol, lengths[-1]), {}).values()
        return fmean(values) if values else math.inf

    lines = ["| model | seeds | " + " | ".join(map(str, lengths)) + " |", "|---|---|" + "---|" * len(lengths)]
    for model in sorted(sorted(set(here["model"])), key=loss):
        cells, seeds = [], 0
        for length in lengths:
            values = list(losses.values.get((model, protocol, length), {}).values())
            seeds = max(seeds, len(values))
            spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{fmean(values):.3f}{spread}" if values else "")
        lines.append(f"| {model} | {seeds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(claims: Sequence[dict[str, Any]], rows: pd.DataFrame) -> None:
    """Every comparison with its interval, by claim and setting."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = {"for": "#1b7837", "against": "#b2182b", "open": "#7f7f7f"}
    names = [claim["claim"] for claim in claims if claim["claim"] in set(rows["claim"])]
    figure, axes = plt.subplots(1, len(SETTINGS), figsize=(11, 9), sharey=True)
    for panel, setting in zip(axes, SETTINGS, strict=True):
        for place, name in enumerate(names):
            found = rows[(rows["claim"] == name) & (rows["setting"] == setting)].reset_index(drop=True)
            for row in found.itertuples():
                y = place + 0.8 * ((row.Index + 0.5) / len(found) - 0.5)
                panel.errorbar(
                    row.difference, y, xerr=row.half_width, fmt="o", markersize=3, linewidth=1, color=colours[row.says]
                )
            panel.axhline(place + 0.5, color="#dddddd", linewidth=0.6)
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set_xscale("symlog", linthresh=0.05)
        panel.set_xticks([-1, -0.1, 0, 0.1, 1], ["-1", "-0.1", "0", "0.1", "1"])
        panel.set_title(setting)
        panel.set_xlabel("nats a byte, first minus second; left: as claimed")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    figure.tight_layout()
    (HERE / "figures").mkdir(exist_ok=True)
    figure.savefig(HERE / "figures" / "claims.png", dpi=110)


def main() -> None:
    """Judges what was gathered."""
    claims = yaml.safe_load((HERE / "claims.yaml").read_text(encoding="utf-8"))
    table = pd.read_parquet(BLOCKS)
    rows = records(claims, table)
    rows.to_csv(HERE / "claims.csv", index=False, float_format="%.6f", lineterminator="\n")
    parts = {
        "claims": claim_table(claims, rows),
        "comparisons": comparison_tables(claims, rows).strip(),
        **{f"losses {setting}": loss_table(table, setting, "nonoverlap") for setting in SETTINGS},
    }
    page = HERE / "README.md"
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->\n\n", f"\n\n<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        text = before + begin + part + end + rest.partition(end)[2]
    page.write_text(text, encoding="utf-8")
    draw(claims, rows)


if __name__ == "__main__":
    main()
