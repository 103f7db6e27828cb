"""What each tracker kept is read back from its own store; without its library there is one sentence."""

import json
import struct
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import lpe_eval
from lpe_eval.cli import app
from lpe_eval.errors import MissingExtra, UnknownName
from lpe_eval.records import Point
from lpe_eval.registry import TRACKERS
from lpe_eval.report.kind import open_folder
from lpe_eval.report.tracker import Tracked, Tracker, log_run, trackers
from tests.support.own_models import reference

TEXT = "alpha beta gamma delta epsilon zeta eta theta " * 60


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    return tmp_path


def typed(*more: str, out: str = "first") -> Any:
    flags = ("--lengths", "32,64", "--data", "text.txt", "--max-tokens", "1500", "--protocol", "nonoverlap")
    return CliRunner().invoke(app, ["ppl", "-m", f"own={reference('bigram')}", *flags, "--out", out, "-q", *more])


def measured(tracker: str) -> dict[tuple[str, int], float]:
    """Runs a measurement with a tracker; gives the values by the name of their curve and the length."""
    result = typed("--log-to", tracker)
    assert result.exit_code == 0, result.output
    assert "did not get everything" not in result.output, result.output
    assert tracker not in result.stdout.lower() and "own" in result.stdout
    rows = lpe_eval.read("first").rows
    return {(f"{row.metric}/{row.protocol}/{row.model}", int(row.length)): row.value for row in rows.itertuples()}


def test_points_are_curves_over_lengths_and_over_steps(here: Path):
    assert typed().exit_code == 0
    found = open_folder(Path("first"))
    points = found.kind.points(found)
    assert [(each.axis, each.at) for each in points] == [("length", 32), ("length", 64)]
    rows = lpe_eval.read("first").rows
    nats = rows[(rows.metric == "nll_nats") & (rows.length == 64)].value.item()
    assert points[1].values["nll_nats/nonoverlap/own"] == nats
    problems = lpe_eval.che("rope", [20, 30], tasks=["parity_check", "reverse_string"], samples=8)
    found = open_folder(problems.folder)
    assert {"accuracy/quick/parity_check/rope", "exact_match/quick/reverse_string/rope"} <= set(
        found.kind.points(found)[0].values
    )


def trained(*more: str) -> Any:
    shape = ("--width", "16", "--layers", "1", "--heads", "1", "--train-length", "16", "--batch-tokens", "64")
    return CliRunner().invoke(
        app,
        ["train", "--encoding", "alibi", *shape, "--steps", "100", "--data", "texts", "--out", "mine", "-q", *more],
    )  # fmt: skip


def test_a_tracker_that_fails_costs_nothing(here: Path):
    class Broken(Tracker):
        module, extra = "json", "broken"

        def __init__(self, run: Tracked) -> None:
            self.ended: list[bool] = []

        def log(self, point: Point) -> None:
            raise ConnectionError("no answer")

        def figure(self, path: Path) -> None:
            raise AssertionError("nothing comes after a failure")

        def end(self, failed: bool) -> None:
            assert failed

    assert typed().exit_code == 0
    (sentence,) = log_run(open_folder(Path("first")), {"broken": Broken})
    assert sentence == "broken did not get everything: ConnectionError: no answer; the run itself is complete in first"


def test_one_that_is_not_installed_is_told_before_anything_is_measured(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtra, match=r"--log-to mlflow needs an extra: pip install 'lpe-eval\[mlflow\]'"):
        trackers(["mlflow"])
    result = typed("--log-to", "mlflow")
    assert result.exit_code == 2 and "needs an extra" in result.output and not Path("first").exists()
    result = typed("--log-to", "wandbb")
    assert result.exit_code == 2 and "did you mean wandb" in result.output
    with pytest.raises(UnknownName):
        trackers(["mlflow2"])
    assert trackers([]) == {} and {"wandb", "trackio", "tensorboard", "mlflow"} <= set(TRACKERS.names())


def test_none_is_imported_where_none_is_asked_for(here: Path):
    before = {name for name in ("wandb", "trackio", "tensorboard", "mlflow") if name in sys.modules}
    assert typed().exit_code == 0
    assert {name for name in ("wandb", "trackio", "tensorboard", "mlflow") if name in sys.modules} == before


quiet = pytest.mark.filterwarnings("ignore")
"""What the libraries themselves warn of is theirs."""


@quiet
def test_tensorboard_kept_the_values_and_the_figures(here: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    wanted = measured("tensorboard")
    (folder,) = Path("runs").iterdir()
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0, "images": 0}).Reload()
    found: dict[tuple[str, int], float] = {}
    for name in events.Tags()["tensors"]:
        for event in events.Tensors(name):
            numbers = [*event.tensor_proto.double_val, *event.tensor_proto.float_val]
            if numbers:
                found[name, event.step] = numbers[0]
    assert found == wanted
    assert "figures/perplexity" in events.Tags()["images"]


@quiet
def test_mlflow_kept_the_values_and_the_figures(here: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (here / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    wanted = measured("mlflow")
    client = MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'lpe-eval'")
    (run,) = client.search_runs([experiment.experiment_id])
    found = {(name, point.step): point.value for name in run.data.metrics
             for point in client.get_metric_history(run.info.run_id, name)}  # fmt: skip
    assert found == wanted and run.info.status == "FINISHED" and run.data.tags["kind"] == "ppl"
    assert "figures/perplexity.png" in {each.path for each in client.list_artifacts(run.info.run_id, "figures")}


def stored_records(content: bytes) -> Iterator[bytes]:
    """The records of W&B's file: seven bytes, then LevelDB's log of blocks, in which a record may be in parts."""
    assert content[:4] == b":W&B"
    at, parts = 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        if kind == 0:
            return
        parts += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield parts
            parts = b""


@quiet
def test_wandb_kept_the_values_and_the_figures(here: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(here))
    wanted = measured("wandb")
    from wandb.proto import wandb_internal_pb2

    (path,) = Path("wandb").glob("offline-run-*/*.wandb")
    found, config, pictures = {}, {}, 0
    for content in stored_records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        if record.WhichOneof("record_type") == "run":
            config |= {each.key: json.loads(each.value_json) for each in record.run.config.update}
        if record.WhichOneof("record_type") == "history":
            line = {each.key or "/".join(each.nested_key): each.value_json for each in record.history.item}
            pictures += sum("image-file" in value for value in line.values())
            if "length" in line:
                at = int(json.loads(line["length"]))
                found |= {(name, at): json.loads(value) for name, value in line.items()
                          if name != "length" and not name.startswith("_")}  # fmt: skip
    assert found == wanted and pictures >= 2
    assert config["lengths"] == [32, 64]


@quiet
def test_trackio_kept_the_values_and_the_figures(here: Path, monkeypatch: pytest.MonkeyPatch):
    if find_spec("trackio") is None:
        pytest.skip("trackio is not installed")
    monkeypatch.setenv("TRACKIO_DIR", str(here / "trackio"))
    wanted = measured("trackio")
    import sqlite3

    (path,) = (here / "trackio").rglob("*.db")
    with sqlite3.connect(path) as store:
        lines = [json.loads(each) for (each,) in store.execute("select metrics from metrics order by id")]
    found = {(name, line["length"]): value for line in lines if "length" in line for name, value in line.items()
             if name != "length"}  # fmt: skip
    assert found == wanted
    assert any("figures/perplexity" in line for line in lines)


@quiet
def test_a_training_is_a_curve_over_its_steps(here: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for split in ("train", "valid"):
        Path("texts", split).mkdir(parents=True)
        Path("texts", split, "a.txt").write_text(TEXT)
    result = trained("--log-to", "tensorboard")
    assert result.exit_code == 0, result.output
    (folder,) = Path("runs").iterdir()
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    lines = [line.split(",") for line in Path("mine/training.csv").read_text().splitlines()]
    wanted = [(int(line[0]), float(line[1])) for line in lines[1:]]
    found = [(each.step, each.tensor_proto.double_val[0]) for each in events.Tensors("train_nll_nats")]
    assert found == wanted and len(found) > 1
    assert {"valid_nll_nats", "gradient_norm", "learning_rate"} <= set(events.Tags()["tensors"])
