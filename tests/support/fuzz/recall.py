"""Readers of runs of recall, and of how one is asked for."""

import json
from pathlib import Path

from hypothesis import strategies as st

from lpe_eval.commands.compare import bless
from lpe_eval.commands.show import show
from lpe_eval.records import Item, ItemCell, ItemKey
from lpe_eval.report.folders.items import ItemFolder
from lpe_eval.report.folders.recall import EFFECTIVE_LENGTH, RECALL, RECALL_KEYS
from lpe_eval.report.kind import open_folder
from lpe_eval.spec.fingerprint import spec_text
from lpe_eval.spec.recall_spec import RecallSpec, parse_depths, parse_tests
from lpe_eval.spec.tasks import parse_spec
from lpe_eval.table import Facts
from tests.support.fuzz.inputs import ODD, VALUES, Reader, altered, anything, each, in_json, put

ASKED = {"kind": "recall", "models": ["alibi", "a=b"], "tests": ["repeat", "needle"], "lengths": [32, 64],
         "depths": [0, 100], "prompts": 4, "share": 0.9, "batch_size": 2, "rope_theta": 1e4}  # fmt: skip


def recall_readers(home: Path) -> list[Reader]:
    folder, spec = home / "recall", RecallSpec.model_validate({**ASKED, "models": ["alibi"], "tests": ["repeat"]})
    facts = Facts("alibi", 8, "recall", 1, "a.txt", "all", 0, "float32", "cpu")
    keys = [ItemKey("alibi", length, ("repeat", length // 2, None)) for length in spec.lengths]

    def store() -> ItemFolder:
        return ItemFolder(
            folder, "recall", "r1", spec_text(spec), False, RECALL, RECALL_KEYS, (EFFECTIVE_LENGTH,)
        )  # fmt: skip

    with store() as made:
        for key in keys:
            items = [Item(f"piece-{number}", f"{number}/{key.length}", 1.5, 8) for number in range(9)]
            made.save(ItemCell(key, facts, {"gain_nats": items, "copy_nats": items}, chance={"gain_nats": 0.0}))
        made.collect(keys)
        made.write_provenance({"kind": "recall", "models": {"alibi": {"digest": "f", "tokenizer_fingerprint": "b"}}})
    found = open_folder(folder)
    for name, content in found.kind.further_files(found).items():
        put(folder / name, content)
    kept = ("recall.csv", "by_item.parquet", EFFECTIVE_LENGTH, "provenance.json", "spec.yaml")
    whole = {name: (folder / name).read_bytes() for name in kept}
    cell = next((folder / "cells").iterdir())
    held = cell.read_bytes()

    def judged(content: bytes, name: str) -> None:
        for other, known in whole.items():
            put(folder / other, known)
        put(folder / name, content)
        each(
            lambda: show(folder), lambda: bless(folder, "fuzz", True),
            lambda: (opened := open_folder(folder)).kind.judged_rows(opened, "fuzz"),
        )  # fmt: skip

    def resumed(content: bytes) -> None:
        put(folder / "spec.yaml", whole["spec.yaml"])
        put(cell, content)
        with store() as again:
            assert again.done() <= {*keys} or again.done()
            again.collect(keys)

    parts = st.lists(st.sampled_from(["0", "50", "100", ":", "+", ",", "10", "%", "x", "-1"]) | ODD, max_size=7)
    return [
        *(Reader(f"recall: {name}", anything(content), lambda content, name=name: judged(content, name), 0.5)
          for name, content in whole.items()),
        Reader("a cell of recall", anything(held) | altered(json.loads(held)).map(in_json), resumed),
        Reader("spec of recall", altered(ASKED) | VALUES, lambda value: spec_text(parse_spec(value, RecallSpec, "x"))),
        Reader("depths and tests", parts.map("".join), lambda text: each(lambda: parse_depths(text),
                                                                         lambda: parse_tests(text))),
    ]  # fmt: skip
