"""The rows of a `che` folder as the gate reads them: one for each model, problem and length.

A string stands where a document does for text: its counted answer tokens are the tokens, and the right ones of them
the sum, so that their mean is the accuracy. Two strings are the same if they have the same place in test sets of the
same hash.

Choices:
    * Of a training, the run that was chosen is judged: the one whose weights were kept.
    * How an encoder was trained is its own affair, as it is of a model of text; only what it was asked decides
      whether two rows can be compared. Strings drawn from another seed, or another number of them, have nothing in
      common and are not comparable.
"""

from pathlib import Path
from typing import Any

from lpe_eval import table
from lpe_eval.errors import OutputError
from lpe_eval.report.folders.provenance import read_provenance
from lpe_eval.report.frames import UNFIT, read_csv, read_parquet
from lpe_eval.report.gate.joining import Judged
from lpe_eval.table import BlockSum


def judged_che_rows(directory: Path, source: str) -> list[Judged]:
    """The judged rows of a folder that `lpe-eval che` wrote, in its order.

    Args:
        directory: the folder.
        source: what it is called.

    Raises:
        OutputError: a file is missing, or holds what no run would write.
    """
    rows = read_csv(directory / "che.csv", table.CHE)
    strings = read_parquet(directory / "by_string.parquet", table.BY_STRING)
    digests = {name: facts.get("digest") for name, facts in read_provenance(directory).get("models", {}).items()}
    blocks: dict[tuple[str, str, int], list[BlockSum]] = {}
    chosen: dict[tuple[str, str], int] = {}
    try:
        for each in strings.to_dict("records"):
            name = str(each["model"]), str(each["task"])
            chosen[name] = int(each["run_index"])
            place = unit_of(str(each["test_set"]), int(each["string"]))
            right, counted = float(each["n_correct"]), int(each["n_tokens"])
            blocks.setdefault((*name, int(each["length"])), []).append(BlockSum(place, place, 0, right, counted, 0, 0))
        found = []
        for row in rows.to_dict("records"):
            if row["metric"] != "accuracy":
                continue
            name = str(row["model"]), str(row["task"])
            if int(row["run_index"]) == chosen.setdefault(name, int(row["run_index"])):
                digest = digests.get(name[0])
                own = blocks.get((*name, int(row["length"])), [])
                found.append(_judged(row, own, None if digest is None else str(digest), source))
    except UNFIT as error:
        raise OutputError(f"the run {source} is damaged ({error}); measure anew") from error
    return found


def unit_of(test_set: str, string: int) -> str:
    """What tells a string from all others: the hash of its test set, and its place there."""
    return f"{test_set}, string {string}"


def _judged(row: dict[Any, Any], blocks: list[BlockSum], checkpoint: str | None, source: str) -> Judged:
    settings = {
        "task": f"{row['task']}, version {row['task_version']}",
        "protocol": "che",
        "tokenizer": "",
        "dtype": str(row["dtype"]),
        "seed": "",
    }
    shown = {**{str(name): value for name, value in row.items()}, "stride": None}
    return Judged(shown, blocks, settings, None, checkpoint, source)
