"""Files of torch.save are read without running what they ask for."""

import argparse
import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lpe_eval.errors import CheckpointError
from lpe_eval.model.foreign.pickles import load_plain, numbers, texts_in


class Malicious:
    """When unpickled without care, creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_file_that_would_run_a_command_runs_nothing_and_is_named(tmp_path: Path, new_format: bool) -> None:
    path, marker = tmp_path / "weights.pt", tmp_path / "marker"
    torch.save({"a": Malicious(marker)}, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=r"weights\.pt asks for (posix|nt)\.system to be built") as error:
        load_plain(path, numbers())
    assert "\n" not in str(error.value)
    assert not marker.exists()
    assert texts_in(path)
    assert not marker.exists()


def test_a_bare_pickle_runs_nothing_either(tmp_path: Path) -> None:
    path, marker = tmp_path / "weights.pt", tmp_path / "marker"
    path.write_bytes(pickle.dumps(Malicious(marker)))
    with pytest.raises(CheckpointError, match=r"weights\.pt"):
        load_plain(path)
    texts_in(path)
    assert not marker.exists()


def test_a_class_of_another_program_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"path": Path("x"), "args": argparse.Namespace(a=1)}, path)
    with pytest.raises(CheckpointError, match=r"asks for pathlib\S* to be built"):
        load_plain(path, [argparse.Namespace])


def test_a_namespace_is_read_only_where_it_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"args": argparse.Namespace(layers=3)}, path)
    assert load_plain(path, [argparse.Namespace])["args"].layers == 3
    with pytest.raises(CheckpointError, match=r"asks for argparse\.Namespace"):
        load_plain(path)


def test_random_states_are_numbers_and_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    state = np.random.RandomState(3).get_state()
    torch.save({"np": state, "py": random.Random(3).getstate(), "loss": np.float64(2.5), "w": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match=r"asks for numpy\.\S+ to be built"):
        load_plain(path)
    found = load_plain(path, numbers())
    assert found["loss"] == 2.5
    assert np.array_equal(found["np"][1], state[1])
    assert found["py"] == random.Random(3).getstate()


def test_arrays_of_the_older_numpy_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save({"a": np.arange(5, dtype=np.uint32)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert load_plain(path, numbers())["a"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("keep", [0, 1, 40, 300, -1, -30])
@pytest.mark.parametrize("new_format", [True, False])
def test_a_truncated_file_gives_one_sentence(tmp_path: Path, keep: int, new_format: bool) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.arange(50.0)}, path, _use_new_zipfile_serialization=new_format)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"weights\.pt is damaged") as error:
        load_plain(path)
    assert "\n" not in str(error.value)
    texts_in(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pt is missing"):
        load_plain(tmp_path / "none.pt")


@pytest.mark.parametrize("new_format", [True, False])
def test_texts_are_found_without_building_anything(tmp_path: Path, new_format: bool) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"model": {"decoder.version": torch.ones(1)}, "args": None}, path,
               _use_new_zipfile_serialization=new_format)  # fmt: skip
    assert {"model", "decoder.version", "args"} <= texts_in(path)
    (tmp_path / "text.pt").write_text("hello")
    assert texts_in(tmp_path / "text.pt") == set()
