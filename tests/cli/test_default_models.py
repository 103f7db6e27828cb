"""Which models a perplexity run measures where nobody names one, and all of them by one word."""

import re
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.spec.released import measured_names, names_of_other_text, released_names


@pytest.mark.parametrize(("flags", "names"), [([], measured_names), (["-m", "all"], released_names)])
def test_one_of_each_kind_or_all(flags, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--lengths", "8", "--protocol", "nonoverlap", "--max-tokens", "40", "-q", "--out", "out"]
    result = CliRunner().invoke(app, ["ppl", *flags, *small])
    assert result.exit_code == 0, result.output
    assert sorted(set(pd.read_csv("out/rows.csv")["model"])) == names()


def test_what_the_readme_shows_is_measured_by_itself():
    table = Path("README.md").read_text(encoding="utf-8").partition("## Reading a result")[2].partition("\n- ")[0]
    shown = set(re.findall(r"^\| ([a-z0-9-]*[a-z0-9]) \|", table, re.MULTILINE)) - {"model"}
    assert len(shown) > 5
    assert shown < set(measured_names()) < set(released_names())


def test_models_of_other_text_are_named_one_by_one():
    names = names_of_other_text()
    assert names
    assert all(name.startswith("urn-") for name in names)
    assert not set(names) & set(released_names())
    listed = CliRunner().invoke(app, ["list", "checkpoints"]).output
    for name in names:
        located = locate(name.replace("-", "_"))
        assert located.peek(LoadOptions()).name == name
        folder = Path(located.path)
        assert {"README.md", "spec.yaml", "training.csv", "provenance.json"} <= {each.name for each in folder.iterdir()}
        assert (folder / "model.safetensors").stat().st_size < 500_000
        assert name in listed
