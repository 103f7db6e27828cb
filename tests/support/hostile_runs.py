"""A perplexity run whose names are other people's worst."""

import csv
import io
import json
from pathlib import Path

import pandas as pd

NAMES = (
    "</script><script>window.pwned = 1</script>",
    "\"><img src=x onerror='window.pwned = 2'>",
    "<!--<script>' & &lt;b&gt; \u202egnp.exe\u2066 \x1b[31m \u2028 {{7*7}} ${8*8} javascript:alert(1)",
    "x" * 300,
)
"""Of models; the second is also that of a document, the third a note."""


def hostile_run(source: Path, target: Path, models: tuple[str, ...]) -> Path:
    """A copy of a run with other names.

    Args:
        source: folder of a perplexity run.
        target: folder of the copy.
        models: of the run, as many as there are `NAMES`.
    """
    target.mkdir()
    names = dict(zip(models, NAMES, strict=True))
    lines = list(csv.reader(io.StringIO((source / "rows.csv").read_text(encoding="utf-8"))))
    at = {name: lines[0].index(name) for name in ("model", "encoding", "note", "status")}
    kept = [lines[0]]
    for line in lines[1:]:
        if line[at["model"]] in names:
            line[at["model"]] = line[at["encoding"]] = names[line[at["model"]]]
            line[at["note"]] = NAMES[2]
            kept.append(line)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(kept)
    (target / "rows.csv").write_bytes(text.getvalue().encode())
    for name in ("by_document.parquet", "by_position.parquet"):
        frame = pd.read_parquet(source / name)
        frame = frame[frame["model"].isin(list(names))].assign(model=lambda held: held["model"].map(names))
        if "document" in frame:
            first = frame["document"].min()
            frame["document"] = frame["document"].where(frame["document"] != first, NAMES[1])
        frame.to_parquet(target / name, index=False)
    for name in ("run.json", "spec.yaml", "cost.csv"):
        (target / name).write_bytes((source / name).read_bytes())
    known = json.loads((source / "provenance.json").read_text(encoding="utf-8"))
    known["models"] = {names[name]: facts for name, facts in known["models"].items() if name in names}
    known["starts"] = [{**start, "argv": ["lpe-eval", *NAMES]} for start in known["starts"]]
    (target / "provenance.json").write_text(json.dumps(known), encoding="utf-8")
    return target
