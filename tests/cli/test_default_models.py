"""Which models a perplexity run measures where nobody names one, and all of them by one word."""

import pandas as pd
import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.spec.released import measured_names, released_names


@pytest.mark.parametrize(("flags", "names"), [([], measured_names), (["-m", "all"], released_names)])
def test_one_of_each_kind_or_all(flags, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--lengths", "8", "--protocol", "nonoverlap", "--max-tokens", "40", "-q", "--out", "out"]
    result = CliRunner().invoke(app, ["ppl", *flags, *small])
    assert result.exit_code == 0, result.output
    assert sorted(set(pd.read_csv("out/rows.csv")["model"])) == names()


def test_what_is_measured_by_itself_is_fewer_than_all_and_has_what_the_readme_shows():
    assert set(measured_names()) < set(released_names())
    assert {"alibi", "kerple-log", "t5", "fire", "rope", "learned"} <= set(measured_names())
