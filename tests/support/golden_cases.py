"""Reads the golden vectors of positional encodings in `golden/encodings/`.

Each file holds numbers that the authors' own code gave on the CPU: explicit parameters, inputs and
outputs, and for each output the distance (`fp64_gap`) between that float32 run and a float64
recomputation. `compare` says which cells mean anything: "all", or "visible" (keys j <= i, where the
queries are the last positions when there are fewer of them than keys).
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "golden" / "encodings"


class Case(NamedTuple):
    """One golden case; `fields` holds the scalars that only some families have."""

    id: str
    provenance: str
    direction: str
    heads: int | None
    head_dim: int | None
    compare: str
    params: dict[str, Any]
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    fp64_gap: dict[str, float]
    fields: dict[str, Any]


def cases(file: str) -> list[Case]:
    """All cases of `golden/encodings/<file>.json`, in file order."""
    found = json.loads((FOLDER / f"{file}.json").read_text())["cases"]
    return [
        Case(
            **{name: entry[name] for name in ("id", "provenance", "direction", "heads", "head_dim", "compare")},
            **{name: entry.get(name, {}) for name in ("params", "inputs", "outputs", "fp64_gap")},
            fields=entry,
        )
        for entry in found
    ]


def case(file: str, case_id: str) -> Case:
    """The case called `case_id`."""
    return next(found for found in cases(file) if found.id == case_id)


def each(
    file: str, wanted: Callable[[Case], bool] = lambda case: True, of: Callable[[Case], Sequence[str]] = lambda case: ()
) -> pytest.MarkDecorator:
    """Runs a test on every case of a file that is wanted, as its argument `case`.

    Args:
        file: the name of the file, without its ending.
        wanted: whether a case is for this test.
        of: the registry names of the encodings in a case. Those that the id of the case does not hold are added to it,
            so that `pytest -k` finds an encoding by its name.
    """
    found = [case for case in cases(file) if wanted(case)]
    assert found
    ids = ["-".join([case.id, *(name for name in of(case) if name not in case.id)]) for case in found]
    return pytest.mark.parametrize("case", found, ids=ids)


def has(*outputs: str) -> Callable[[Case], bool]:
    """Whether a case has one of the outputs."""
    return lambda case: any(output in case.outputs for output in outputs)


def tensor(value: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    """Nested lists as a tensor; the string "-inf" is a number."""
    return torch.tensor(_numbers(value), dtype=dtype)


def tolerance(case: Case, output_name: str) -> float:
    """How far an exact implementation may be from the golden float32 numbers of one output."""
    golden = tensor(case.outputs[output_name], torch.float64).flatten()
    finite = golden[golden.isfinite()].abs()
    largest = float(finite.max()) if len(finite) else 0.0
    return 4 * case.fp64_gap.get(output_name, 0.0) + 2e-6 * max(1.0, largest)


def compared(case: Case, got: Tensor, golden: Tensor) -> tuple[Tensor, Tensor]:
    """The cells of both tensors that mean anything, flattened.

    Under "visible" the last two axes are query rows and keys.
    """
    got, golden = torch.broadcast_tensors(got.detach().double(), golden.double())
    if case.compare == "all":
        return got.flatten(), golden.flatten()
    rows, columns = golden.shape[-2:]
    visible = torch.ones(rows, columns, dtype=torch.bool).tril(columns - rows)
    return got[..., visible].flatten(), golden[..., visible].flatten()


def check(case: Case, output_name: str, got: Tensor) -> None:
    """Asserts that `got` has the numbers of one output in every compared cell."""
    mine, golden = compared(case, got, tensor(case.outputs[output_name], torch.float64))
    finite = golden.isfinite()
    assert torch.equal(mine[~finite], golden[~finite]), f"{case.id}: {output_name} is finite elsewhere"
    gap = float((mine[finite] - golden[finite]).abs().max()) if bool(finite.any()) else 0.0
    assert gap <= tolerance(case, output_name), f"{case.id}: {output_name} is {gap:.3g} away from the golden numbers"


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_numbers(each) for each in value]
    return float(value) if value == "-inf" else value
