"""A run on Ray: what is asked of a cluster, and with a real one on this machine the bytes of one process."""

import ast
import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.engine import Engine, parse_engine, run_on, shard_files
from lpe_eval.errors import SpecError
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.spec.tasks import load_yaml, read_task
from tests.support.che_runs import no_bar
from tests.support.runs_to_end import che, furnished, ppl

PPL = ("rows.csv", "by_document.parquet", "by_position.parquet", "spec.yaml", "run.json")


def told(arguments: Sequence[str], code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "400"})
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def test_an_engine_is_ray_and_its_workers_need_something():
    assert parse_engine("ray", None, 0.0, 1.0) == Engine("", None, 0.0, 1.0)
    assert parse_engine("ray://head:10001", 3, 0.5, 2.0) == Engine("ray://head:10001", 3, 0.5, 2.0)
    for text, workers, gpus, cpus in [
        ("dask", None, 0.0, 1.0), ("ray://", None, 0.0, 1.0), ("ray", 0, 0.0, 1.0), ("ray", 1, -1.0, 1.0),
        ("ray", 1, 0.0, 0.0),
    ]:  # fmt: skip
        with pytest.raises(SpecError, match=r"--engine|--workers"):
            parse_engine(text, workers, gpus, cpus)


def test_flags_that_do_not_go_with_an_engine_are_refused():
    assert "--engine" in told(["ppl", "-m", "alibi", "--engine", "ray"], code=2)
    assert "--shard" in told(["ppl", "-m", "alibi", "--out", "x", "--engine", "ray", "--shard", "1/2"], code=2)
    assert "belong to --engine" in told(["ppl", "-m", "alibi", "--workers", "3"], code=2)


def test_packages_of_extras_are_imported_only_where_they_are_asked_for():
    extras = {"ray", "fsspec", "s3fs", "gcsfs", "accelerate"}
    for path in (Path(__file__).parents[2] / "lpe_eval").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & extras, path


def test_what_a_shard_cannot_do_comes_back_as_a_sentence(tmp_path: Path):
    fields = PerplexitySpec.of_task(read_task("python-stdlib"), {"models": ["./nothing"], "lengths": [32]})
    content = PerplexitySpec.model_validate(fields).model_dump(mode="json")
    files, error, code = shard_files(content, 1, 2, {}, str(tmp_path))
    assert (files, code) == ({}, 2) and "nothing" in error


@pytest.mark.slow
def test_three_workers_of_ray_give_the_bytes_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("ray")
    monkeypatch.chdir(furnished(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    told(ppl("whole"))
    told([*ppl("by ray"), "--engine", "ray", "--workers", "3"])
    for name in PPL:
        assert (tmp_path / "by ray" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    starts = json.loads((tmp_path / "by ray" / "provenance.json").read_text())["starts"]
    assert len({start["shard"] for start in starts}) == len(starts) <= 12
    told(che("problems"))
    told([*che("problems by ray"), "--engine", "ray", "--workers", "3"])
    for name in ("che.csv", "summary.csv", "by_string.parquet"):
        assert (tmp_path / "problems by ray" / name).read_bytes() == (tmp_path / "problems" / name).read_bytes(), name


@pytest.mark.slow
def test_a_worker_of_ray_that_is_killed_costs_nothing_but_its_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ray = pytest.importorskip("ray")
    monkeypatch.chdir(furnished(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    told(ppl("whole"))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    over, killed = threading.Event(), []

    def kill_one() -> None:
        while not over.wait(0.2) and not killed:
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    name = (folder / "cmdline").read_bytes()
                    parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                except (OSError, ValueError, IndexError):
                    continue
                if name.startswith(b"ray::shard_files") and parent != os.getpid() and time.monotonic() > began + 2:
                    os.kill(int(folder.name), signal.SIGKILL)
                    killed.append(int(folder.name))
                    return

    began = time.monotonic()
    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    try:
        spec = PerplexitySpec.model_validate(load_yaml(tmp_path / "whole" / "spec.yaml"))
        outcome = run_on(Engine("", 2, 0.0, 1.0), spec, tmp_path / "killed", no_bar, lambda sentence: None)
    finally:
        over.set()
        killer.join()
        ray.shutdown()
    assert killed and not outcome.failed
    for name in PPL:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
