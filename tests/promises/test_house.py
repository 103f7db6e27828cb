"""The house itself: what README and CONTRIBUTING say of it is so, and every room is what its name says."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import lpe_eval
from lpe_eval.model.attentions.blocked import Blocked
from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.encoding import Encoding, Geometry
from lpe_eval.model.mask import Mask

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = sorted((ROOT / "lpe_eval").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def test_every_module_can_be_imported():
    for module in pkgutil.walk_packages(lpe_eval.__path__, "lpe_eval."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def test_the_tree_in_contributing_is_the_one_on_disk():
    told, above = set(), []
    tree = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("<!-- tree -->")[1]
    for indent, name in re.findall(r"^([│├└─ ]*)([\w.]+(?:\.py|/))(?:\s|$)", tree, flags=re.MULTILINE):
        above[len(indent) // 4 :] = [name]
        told.add("".join(above))
    rooms = {_path(path) for path in ROOT.glob("lpe_eval/**/*.py") if path.name == "__init__.py"}
    files = {_path(path) for path in SOURCES if path.name != "__init__.py" and not _is_member(path)}
    shipped = {"lpe_eval/released/", "lpe_eval/released_che/", "lpe_eval/released_urn/"}
    missing, gone = (rooms | files) - told, told - rooms - files - shipped
    assert not missing, f"the tree of CONTRIBUTING.md does not show {sorted(missing)}"
    assert not gone, f"the tree of CONTRIBUTING.md shows what is not there: {sorted(gone)}"


def _path(path: Path) -> str:
    below = path.relative_to(ROOT)
    return f"{below.parent.as_posix()}/" if below.name == "__init__.py" else below.as_posix()


def _is_member(path: Path) -> bool:
    """Members of rooms, and commands, are listed by the program, not by the tree."""
    rooms = {"cli", "commands", "encodings", "attentions", "checkpoints", "corpora", "tokenizers", "problems", "kinds"}
    rooms |= {"exporters", "importers", "trackers"}
    return path.parent.name in rooms


def test_the_encoding_of_the_readme_works_as_it_stands():
    (code,) = re.findall(r"<!-- example -->\s*```python\n(.*?)```", README, flags=re.DOTALL)
    module: dict = {"__name__": "example"}
    exec(compile(code, "example.py", "exec"), module)
    (member,) = [
        value
        for value in module.values()
        if isinstance(value, type) and issubclass(value, Encoding) and value is not Encoding
    ]
    encoding = member(Geometry(heads=3, head_width=8, width=24, train_length=16), member.Options())
    encoding.initialise(torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 3, 40, 8, generator=draw) for _ in range(3))
    at = encoding.positions(40, torch.device("cpu"), draw)
    dense, blocked = (path.attend(q, k, v, encoding, at, Mask()) for path in (Dense, Blocked))
    torch.testing.assert_close(dense, blocked, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(dense, Dense.attend(q, k, v, Encoding(encoding.geometry, encoding.options), at, Mask()))


def test_the_two_commands_of_the_readme_use_the_tested_versions():
    commands = re.findall(r"^pip install .*$", README, flags=re.MULTILINE)
    assert [("&& lpe-eval ppl" in each, "&& pytest" in each) for each in commands] == [(True, False), (False, True)]
    assert all("-c constraints.txt" in each for each in commands)


def test_the_changelog_knows_the_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{lpe_eval.__version__}]" in changelog


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_what_it_is_and_keeps_the_rules_no_linter_knows(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.name != "__init__.py" or path.parent.name == "lpe_eval":
        assert ast.get_docstring(tree), "a module begins by saying what it is"
    assert not {"utils", "helpers", "common", "misc"} & {path.stem, *path.parts}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "__future__", "annotations as strings cannot be executed by the tests"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "hasattr", "a contract says what is there"


def test_tests_share_what_lies_in_support_and_nothing_else():
    for path in TESTS:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        modules = [node.module or "" for node in froms]
        modules += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        assert not any(node.level for node in froms), f"{path} writes an import that is not in full"
        wrong = [name for name in modules if re.match(r"test_|conftest|tests(?!\.support)", name)]
        assert not wrong, f"{path} imports {wrong}"


def test_no_two_test_modules_have_the_same_name():
    names = [path.name for path in TESTS if path.name.startswith("test_")]
    assert len(set(names)) == len(names)
