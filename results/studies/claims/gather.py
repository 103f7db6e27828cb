"""Puts the sums of runs of `ppl` into blocks.parquet, which claims.py judges from.

python results/studies/claims/gather.py SETTING RUN...
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

BLOCKS = Path(__file__).parent / "blocks.parquet"


def gather(setting: str, runs: Sequence[str]) -> None:
    """Puts the sums of runs into `blocks.parquet`, in place of what it holds of the same models."""
    new = []
    for run in runs:
        found = pd.read_parquet(Path(run) / "by_document.parquet")
        name = found["model"].str.extract(r"^(?P<model>.*?)(?:-seed(?P<seed>\d+))?$")
        protocol = found["protocol"].where(
            (found["protocol"] != "sliding") | (found["stride"] != 1), found["protocol"] + "-1"
        )
        facts = {"setting": setting, "model": name["model"], "seed": name["seed"].fillna("1").astype("int64")}
        new.append(found[["length", "digest", "block", "nll_nats", "n_tokens"]].assign(**facts, protocol=protocol))
    table = pd.concat(new, ignore_index=True)
    key = ["setting", "model", "seed", "protocol", "length"]
    if BLOCKS.exists():
        old = pd.read_parquet(BLOCKS)
        replaced = set(map(tuple, table[key].drop_duplicates().values))
        old = old[[tuple(row) not in replaced for row in old[key].values]]
        table = pd.concat([old, table], ignore_index=True)
    order = [*key, "digest", "block"]
    table = table[[*order, "nll_nats", "n_tokens"]].sort_values(order, ignore_index=True)
    table.to_parquet(BLOCKS, index=False, compression="zstd")


if __name__ == "__main__":
    gather(sys.argv[1], sys.argv[2:])
