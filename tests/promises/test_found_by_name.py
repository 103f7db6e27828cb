"""`pytest -k` finds the tests of an encoding by its registry name: in the file, in the function, or in the id."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from lpe_eval.registry import ENCODINGS
from tests.support.golden_cases import FOLDER, Case, cases

TESTS = Path(__file__).parents[1]
NAMES = ENCODINGS.names()
ROOMS = ("encodings", "attentions", "model", "train")
IN_WORDS = {
    "alibi": "alibi",
    "kerple-log": "kerple_log",
    "kerple log": "kerple_log",
    "kerple_log": "kerple_log",
    "three-parameter log": "kerple_log",
    "kerple power": "kerple_power",
    "fire": "fire",
    "dape-v2": "dape_v2",
    "nope": "none",
    "transformer-xl": "transformer_xl",
    "_relative": "transformer_xl",
    "rotary": "rope",
    "sin_cos": "sinusoidal",
    "t5": "t5",
}
"""How golden cases tell of the encodings in them, beside the registry's names."""


def found(item: pytest.Function, name: str) -> bool:
    """Whether `pytest -k NAME` finds a test, folders and marks aside."""
    return name in f"{item.path.name} {item.name}".lower()


@pytest.fixture(scope="module")
def items(request: pytest.FixtureRequest) -> list[pytest.Function]:
    """The tests of encodings, of attention, of models and of trainings, as pytest collects them."""
    files = sorted(path for room in ROOMS for path in (TESTS / room).glob("test_*.py"))
    # Where Triton is missing this file cannot be imported.
    modules = [pytest.Module.from_parent(request.session, path=path) for path in files if path.name != "test_fused.py"]
    return [item for module in modules for item in module.collect() if isinstance(item, pytest.Function)]


def parameters(item: pytest.Function) -> dict[str, object]:
    """What a test is given by `parametrize`."""
    return item.callspec.params if "callspec" in vars(item) else {}


def named(value: object) -> set[str]:
    """The registry names in a parameter of a test."""
    return set() if isinstance(value, Case) else set(re.findall(r"\w+", str(value))) & set(NAMES)


def encodings_of(case: Case) -> set[str]:
    """The registry names of the encodings in a golden case, from what its file says of it."""
    said = f"{case.fields['encoding']} {case.fields['variant']} {case.id}".lower()
    by_words = {name for words, name in IN_WORDS.items() if words in said}
    return by_words | ({case.fields["encoding"], case.id, *case.id.split("_")} & set(NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_every_golden_case_of_an_encoding_is_found_by_its_name(name: str, items: list[pytest.Function]):
    tested = defaultdict(list)
    for item in items:
        case = parameters(item).get("case")
        if isinstance(case, Case):
            tested[case.fields["encoding"], case.id].append(item)
    for file in FOLDER.glob("*.json"):
        for case in cases(file.stem):
            tests = tested[case.fields["encoding"], case.id]
            assert tests, f"no test reads the case {case.id} of {file.name}"
            lost = [item.nodeid for item in tests if name in encodings_of(case) and not found(item, name)]
            assert not lost


@pytest.mark.parametrize("name", NAMES)
def test_every_encoding_has_a_file_of_its_own_tests(name: str):
    assert (TESTS / "encodings" / f"test_{name}.py").is_file()


def test_a_test_that_is_given_an_encoding_is_found_by_its_name(items: list[pytest.Function]):
    of_every_encoding = defaultdict(set)
    for item in items:
        given = {name for value in parameters(item).values() for name in named(value)}
        lost = [name for name in given if not found(item, name)]
        assert not lost, f"{item.nodeid} is not found by {lost}"
        of_every_encoding[item.path.name, item.originalname] |= given
    promised = {file for (file, _), given in of_every_encoding.items() if given == set(NAMES)}
    assert promised >= {"test_attention.py", "test_encoding_contract.py", "test_seam_descriptions.py"}


def test_no_test_names_fire_in_its_body_alone():
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and "fire" not in path.name:
                body = "\n".join(ast.unparse(each) for each in node.body)
                head = node.name + "".join(ast.unparse(each) for each in node.decorator_list)
                told = "fire" in head.lower() or "every_encoding" in head
                assert told or not re.search(r"(?i)\bfire\b", body), f"{path}: {node.name}"
