"""A training of a small language model."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from lpe_eval.errors import OutputError, SpecError
from lpe_eval.plain import Unreadable, read_plain
from lpe_eval.records import Point
from lpe_eval.report.folders.folder import Layout
from lpe_eval.report.folders.train import LAYOUT, read_log
from lpe_eval.report.frames import UNFIT
from lpe_eval.report.kind import Found, Kind
from lpe_eval.report.page.parts import Chart, HeatMap
from lpe_eval.report.stored_rows import Stored
from lpe_eval.report.tables.provenance import corpus, text
from lpe_eval.report.tables.train import losses
from lpe_eval.screen import Table
from lpe_eval.spec.train_spec import TrainSpec
from lpe_eval.text_tables import TRAINING

_LOG = "training.csv"
_DAMAGED = "{} is damaged; train once more in another folder"


class Training(Kind):
    """See the module's docstring."""

    name = "train"
    title = "a training"
    spec = TrainSpec
    columns = ()

    @classmethod
    def layout(cls) -> Layout:
        return LAYOUT

    @classmethod
    def about(cls, found: Found) -> list[tuple[str, str]]:
        spec, known = found.spec, found.provenance
        model, described = spec.get("model", {}), known.get("corpus", {})
        shape = f"{model.get('layers')} layers, width {model.get('width')}, {model.get('heads')} heads"
        return [
            ("model", f"{spec.get('name')}: {shape}, windows of {model.get('train_length')}"),
            ("encoding", json.dumps(model.get("encoding"))),
            ("steps", f"{spec.get('steps')} of {spec.get('batch_tokens')} tokens, rate {spec.get('learning_rate')}"),
            *corpus(described.get("describe", {}), str(spec.get("corpus", {}).get("name"))),
            *((f"{split} text", text(described.get(split))) for split in ("train", "valid")),
            ("checkpoint", text(known.get("checkpoint_digest"))),
            ("state", "finished" if "tokens_seen" in known else "not finished"),
        ]

    @classmethod
    def stored(cls, found: Found) -> Stored:
        return Stored("training.csv", TRAINING, [row._asdict() for row in read_log(found.path)])

    @classmethod
    def values(cls, found: Found) -> list[Table]:
        lines = _log(found)
        try:
            return [losses(lines)]
        except UNFIT as error:
            raise OutputError(_DAMAGED.format(found.path / _LOG)) from error

    @classmethod
    def points(cls, found: Found) -> list[Point]:
        curves = ("train_nll_nats", "valid_nll_nats", "gradient_norm", "learning_rate")
        try:
            return [
                Point("step", int(line["step"]), {name: float(line[name]) for name in curves if line[name]})
                for line in _log(found)
            ]
        except UNFIT as error:
            raise OutputError(_DAMAGED.format(found.path / _LOG)) from error

    @classmethod
    def charts(cls, folders: Sequence[Found]) -> list[Chart | HeatMap]:
        return []

    @classmethod
    def draw(cls, folders: Sequence[Found], out: Path) -> list[Path]:
        raise SpecError(f"{folders[0].path} holds a training, of which there is no figure; measure its checkpoint")


def _log(found: Found) -> list[dict[str, str]]:
    path = found.path / _LOG
    try:
        return list(csv.DictReader(io.StringIO(read_plain(path)))) if path.exists() else []
    except (Unreadable, csv.Error) as error:
        raise OutputError(f"{path} {error}") from error
