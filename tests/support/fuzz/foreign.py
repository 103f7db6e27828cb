"""Readers of what other programs wrote."""

import json
from pathlib import Path

from lpe_eval.report.gate.judge import judge
from lpe_eval.report.gate.rules import Rules
from lpe_eval.report.importers.lm_eval import LmEval
from tests.support.fuzz.inputs import Reader, altered, anything, in_json, put

GOLDEN = Path(__file__).parents[2] / "golden" / "lm_eval" / "one"


def foreign_readers(home: Path) -> list[Reader]:
    whole = {path.name: path.read_bytes() for path in GOLDEN.rglob("*") if path.is_file()}
    pages, results = (next(name for name in whole if name.startswith(part)) for part in ("samples_pages", "results"))
    lines = [json.loads(line) for line in whole[pages].splitlines()[:3]]
    known = {key: value for key, value in json.loads(whole[results]).items() if key != "configs"}
    folder = home / "out"
    folder.mkdir()
    old = LmEval.judged_rows(GOLDEN, "golden")

    def changed(name: str, content: bytes) -> None:
        for other, kept in whole.items():
            put(folder / other, kept)
        put(folder / name, content)
        judge(LmEval.judged_rows(folder, "it"), old, Rules())

    return [
        Reader("samples of lm-eval", anything(whole[pages]) | altered(lines).map(
            lambda value: b"\n".join(map(in_json, value)) if isinstance(value, list) else in_json(value)
        ), lambda content: changed(pages, content)),
        Reader("results of lm-eval", anything(in_json(known)) | altered(known).map(in_json),
               lambda content: changed(results, content)),
    ]  # fmt: skip
