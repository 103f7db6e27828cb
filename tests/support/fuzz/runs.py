"""Readers of runs, and of trainings on algorithmic problems."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

from lpe_eval import table
from lpe_eval.commands.compare import bless
from lpe_eval.model.encoder_folder import load_encoder, read_encoder_config
from lpe_eval.records import LogRow
from lpe_eval.report.folders.che import CheFolder
from lpe_eval.report.folders.ppl import open_run, read_run
from lpe_eval.report.folders.train import TrainingFolder
from lpe_eval.report.frames import read_csv
from lpe_eval.report.gate.che_rows import judged_che_rows
from lpe_eval.report.numbers.statistics import summarise
from lpe_eval.spec.che_spec import CheSpec, read_protocol
from lpe_eval.table import BlockSum, CellKey, Cost, Facts, Measurement, PositionSum
from tests.support.che_runs import tiny, trained
from tests.support.fuzz.inputs import Reader, altered, anything, each, in_json, in_yaml, put


def run_readers(home: Path) -> list[Reader]:
    key, text = CellKey("a model", "sliding", 8, 4), "kind: ppl\nlengths: [8]\n"
    measurement = Measurement(
        key, Facts("alibi", 8, "custom", 0, "a.txt", "all", 0, "float32", "cpu"), "dense",
        (BlockSum("a.txt", "0f", 0, 9.5, 4, 4, 0), BlockSum("b.txt", "1e", 0, 8.5, 4, 4, 0)),
        (PositionSum(1, 4, 9.5, 4),), Cost(0.1, 8, 1, 0, 10.0, 64),
    )  # fmt: skip
    folder = home / "run"
    with open_run(folder, text, "r1") as store:
        store.save(measurement, summarise(measurement, "r1", 0, replicates=20))
        store.collect([key])
        store.write_provenance({"models": {"a model": {"tokenizer_fingerprint": "f"}}})
    whole = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (cell,) = (name for name in whole if name.parts[0] == "cells")

    def changed(name: Path) -> Callable[[bytes], object]:
        def read(content: bytes) -> None:
            for other, kept in whole.items():
                put(folder / other, kept)
            put(folder / name, content)
            read_run(folder)

        return read

    def resumed(content: bytes) -> None:
        for other, kept in whole.items():
            put(folder / other, kept)
        put(folder / cell, content)
        with open_run(folder, text, "r1") as store:
            assert store.finished() <= {key} or store.finished()
            store.collect([key])
        read_run(folder)

    training = home / "training"
    with TrainingFolder(training, "r1", text) as made:
        made.write_log([LogRow(20, 2.5, 0.1, 0.01, None, 0.3), LogRow(40, 2.1, 0.1, 0.01, 2.2, 0.6)])
    log = (training / "training.csv").read_bytes()

    def resumed_training(content: bytes) -> None:
        put(training / "training.csv", content)
        with TrainingFolder(training, "r1", text) as again:
            again.read_log(up_to_step=30)

    speed = ",".join(column.name for column in table.SPEED).encode() + b"\n"
    structure = json.loads(whole[cell])
    return [
        *(Reader(f"run: {name}", anything(whole[name]), changed(name), 0.5) for name in sorted(whole)
          if name != cell and name.name != ".lock"),
        Reader("a cell", anything(whole[cell]) | altered(structure).map(in_json), resumed),
        Reader("log of a training", anything(log), resumed_training),
        Reader("table of speeds", anything(speed + speed), lambda content: read_csv(put(home / "s.csv", content),
                                                                                    table.SPEED)),
    ]  # fmt: skip


def problem_readers(home: Path) -> list[Reader]:
    folder, kept = home / "che", ("che.csv", "by_string.parquet", "provenance.json", "spec.yaml")
    spec = {"encodings": ["rope"], "tasks": ["even_pairs"], "protocol": tiny(steps=2, layers=1).model_dump()}
    trained(folder, protocol=tiny(steps=2, layers=1))
    (encoder,) = (folder / "checkpoints").iterdir()
    whole = {name: (folder / name).read_bytes() for name in kept}
    config, weights = ((encoder / name).read_bytes() for name in ("config.yaml", "even_pairs.safetensors"))
    (cell,) = (folder / "cells").iterdir()
    held, run = cell.read_bytes(), json.loads((folder / "run.json").read_bytes())["run"]

    def opened(content: bytes, name: str) -> None:
        put(encoder / "config.yaml", config)
        put(encoder / "even_pairs.safetensors", weights)
        put(encoder / name, content)
        found = read_encoder_config(encoder)
        for task in found.tasks:
            load_encoder(encoder, found, task, torch.device("cpu"))

    def judged(content: bytes, name: str) -> None:
        for other, known in whole.items():
            put(folder / other, known)
        put(folder / name, content)
        each(lambda: judged_che_rows(folder, "fuzz"), lambda: bless(folder, "fuzz", True))

    def resumed(content: bytes) -> None:
        put(folder / "spec.yaml", whole["spec.yaml"])
        put(cell, content)
        with CheFolder(folder, CheSpec.model_validate(spec).model_dump(mode="json"), run, False) as again:
            again.collect([("rope", "even_pairs")])
            again.collect_strings([("rope", "even_pairs")])

    return [
        Reader("config of encoders", anything(config) | altered(yaml.safe_load(config)).map(in_yaml),
               lambda content: opened(content, "config.yaml")),
        Reader("weights of an encoder", anything(weights),
               lambda content: opened(content, "even_pairs.safetensors"), 0.5),
        *(Reader(f"problems: {name}", anything(whole[name]), lambda content, name=name: judged(content, name), 0.5)
          for name in kept),
        Reader("a cell of problems", anything(held) | altered(json.loads(held)).map(in_json), resumed),
        Reader("protocol of problems", anything(in_yaml(tiny().model_dump())),
               lambda content: read_protocol(str(put(home / "p.yaml", content)))),
    ]  # fmt: skip
