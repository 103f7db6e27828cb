"""`lpe-eval bias`: files, table and figure of what each head adds, and what is refused in a sentence."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from lpe_eval import bias_tables
from lpe_eval.cli import app
from lpe_eval.commands.bias import parse_layers
from lpe_eval.data.selection import EncodedDocument
from lpe_eval.errors import SpecError
from lpe_eval.measure.bias import change_of, cut, measure_bias, octaves
from lpe_eval.model.language_model import LanguageModel, LastQuery, ModelFacts
from lpe_eval.report.figures.bias import bias_figure, panels_of
from lpe_eval.report.frames import read_csv, read_parquet
from lpe_eval.report.numbers.heads import change_of as kind_of
from tests.support.native_checkpoints import checkpoint
from tests.support.small_ppl import TEXT


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    Path("text.txt").write_text(TEXT)
    return tmp_path


def told(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["bias", *map(str, arguments)])
    assert result.exit_code == code, result.output + repr(result.exception)
    assert "Traceback" not in result.output
    return "\n".join(" ".join(line.split()) for line in result.output.splitlines())


def asked(model: str, *more: object, code: int = 0) -> str:
    return told(model, "--data", "text.txt", "--position", 40, "--samples", 3, "--out", "out", *more, code=code)


def test_alibi_is_its_closed_form_in_every_file_and_one_line_a_head() -> None:
    checkpoint(Path("mine"), "alibi")
    said = asked("mine")
    by_distance = read_parquet(Path("out/by_distance.parquet"), bias_tables.BY_DISTANCE)
    assert len(by_distance) == 2 * 2 * 41
    slopes = np.array([2.0**-4, 2.0**-8])[by_distance["head"].to_numpy(dtype=int)]
    wanted = -slopes * by_distance.distance.to_numpy(dtype=float)
    assert (by_distance.added == wanted).all()
    assert (by_distance.static == wanted).all()
    assert (by_distance.added_stderr == 0).all()
    assert by_distance.of_mean_key.isna().all()
    rows = read_csv(Path("out/bias.csv"), bias_tables.BIAS)
    assert [(a, b) for a, b in rows[["distance_from", "distance_to"]].drop_duplicates().to_numpy().tolist()] == [
        (0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 40),
    ]  # fmt: skip
    last = rows[(rows.layer == 1) & (rows["head"] == 0) & (rows.distance_from == 32)].iloc[0]
    assert last.added == -36 / 16
    assert last.far_less_near == -(30.5 - 4) / 16
    assert last.head_kind == "local"
    assert set(rows[rows["head"] == 1].head_kind) == {"flat"}
    assert "the same for every text" in said
    lines = [line.split()[:3] for line in said.splitlines() if line.startswith("all ")]
    assert lines == [["all", "0", "local"], ["all", "1", "flat"]]
    assert {each.name for each in Path("out/figures").iterdir()} == {"bias.png", "bias.svg"}
    facts = json.loads(Path("out/bias.json").read_text())
    assert facts["position"] == 40
    assert len(facts["models"]["mine"]["documents"]) >= 1


def test_an_encoding_that_reads_the_text_is_told_with_its_errors_beside_its_static_bias() -> None:
    checkpoint(Path("mine"), "dape(kerple_log)")
    said = asked("mine", "--layers", "1")
    assert "of that the static bias, which no token moves" in said
    assert "± is one standard error over 3 texts" in said
    rows = read_csv(Path("out/bias.csv"), bias_tables.BIAS)
    assert set(rows.layer) == {0, 1}
    assert (rows.added_stderr > 0).any()
    assert not [line for line in said.splitlines() if line.startswith("0 ")]
    assert len([line for line in said.splitlines() if line.startswith("1 ")]) == 4


def test_a_layer_with_a_window_has_as_many_octaves_as_it_sees() -> None:
    checkpoint(Path("mine"), "dape(kerple_log)[window=6],dape(kerple_log)")
    said = asked("mine")
    lines = [line.split() for line in said.splitlines() if line[:2] in ("0 ", "1 ")]
    # Layer, head, kind, a change with its error, octaves; then layer, head and octaves of the static bias.
    assert [len(line) for line in lines] == [10, 10, 13, 13, 6, 6, 9, 9]
    found = read_parquet(Path("out/by_distance.parquet"), bias_tables.BY_DISTANCE)
    assert found[found.layer == 0].distance.max() == 5
    assert found[found.layer == 1].distance.max() == 40


def test_means_and_errors_are_those_of_the_texts_one_by_one() -> None:
    checkpoint(Path("mine"), "rope")
    asked("mine")
    found = read_parquet(Path("out/by_distance.parquet"), bias_tables.BY_DISTANCE)
    drawn: list[pd.DataFrame] = []
    # Each text alone: the files of one, two and three texts are prefixes of each other.
    for count in (1, 2, 3):
        told("mine", "--data", "text.txt", "--position", 40, "--samples", count, "--out", f"out{count}")
        drawn.append(read_parquet(Path(f"out{count}/by_distance.parquet"), bias_tables.BY_DISTANCE))
    first = drawn[0].added
    second = 2 * drawn[1].added - first
    third = 3 * drawn[2].added - first - second
    by_text = np.stack([first, second, third])
    np.testing.assert_allclose(found.added, by_text.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.added_stderr, by_text.std(axis=0, ddof=1) / math.sqrt(3), atol=1e-7)
    assert drawn[0].added_stderr.isna().all()
    assert found.decay.notna().all()
    assert found.of_mean_key.notna().all()


def test_the_same_question_has_the_same_answer_and_another_one_is_not_lost() -> None:
    checkpoint(Path("mine"), "rope")
    asked("mine")
    before = {each: Path("out", each).read_bytes() for each in ("bias.csv", "by_distance.parquet", "figures/bias.png")}
    asked("mine")
    assert {each: Path("out", each).read_bytes() for each in before} == before
    said = asked("mine", "--seed", 1, code=1)
    assert "out holds bias.json of another model, text or position; choose another --out" in said
    assert Path("out/bias.csv").read_bytes() == before["bias.csv"]
    asked("mine", "--seed", 1, "--overwrite")
    assert Path("out/bias.csv").read_bytes() != before["bias.csv"]


def test_without_a_folder_it_goes_below_results() -> None:
    checkpoint(Path("mine"), "alibi")
    said = told("mine", "--data", "text.txt", "--position", 12, "--samples", 1)
    (folder,) = Path("results/bias").iterdir()
    assert f"{folder}/bias.csv" in said
    assert "one text gives no error" not in said


@pytest.mark.parametrize(
    ("encoding", "arguments", "wanted"),
    [
        ("alibi", ["--position", "0"], "--position must be between 1 and"),
        ("alibi", ["--position", "-3"], "--position must be between 1 and"),
        ("alibi", ["--samples", "0"], "--samples must be between 1 and"),
        ("alibi", ["--position", "100000"], "tokens that position 100000 needs; the longest of"),
        ("alibi", ["--position", "40", "--layers", "2"], "--layers 2: mine has the layers 0 to 1"),
        ("alibi", ["--layers", "one"], "'one' is no layer; write 0,5,11 or 0-3"),
        ("alibi", ["--layers", ","], "names no layer"),
        ("alibi", ["--rope-theta", "1e6"], "--rope-theta has no effect on"),
        ("alibi", ["--data", "nothing.txt"], "nothing.txt"),
        ("dape(learned)", ["--position", "40"], "--position 40: "),
        ("learned", ["--position", "10"], "adds its positions (learned) to the embeddings of its tokens"),
        ("none", ["--position", "10"], "has no positional encoding"),
    ],
)
def test_what_cannot_be_is_one_sentence(encoding: str, arguments: list[str], wanted: str) -> None:
    checkpoint(Path("mine"), encoding)
    given = ["--data", "text.txt", *arguments]
    said = told("mine", *given, code=2)
    assert said.startswith("error: ")
    assert wanted in said
    assert len(said.splitlines()) == 1
    assert not Path("results").exists()


def test_octaves_end_where_the_keys_do() -> None:
    assert octaves(0) == [(0, 0)]
    assert octaves(1) == [(0, 0), (1, 1)]
    assert octaves(8) == [(0, 0), (1, 1), (2, 3), (4, 7), (8, 8)]
    fine = octaves(1000, 8)
    assert [each for first, last in fine for each in range(first, last + 1)] == list(range(1001))
    assert max(last - first + 1 for first, last in fine) == 64


def test_near_and_far_are_told_apart() -> None:
    distance = np.arange(41)
    added = np.stack([-0.1 * distance, np.zeros(41), np.where(distance == 0, -1e4, 0.2 * distance)]).astype(np.float64)
    np.testing.assert_allclose(change_of(distance, added), [-0.1 * 26.5, 0, 0.2 * 26.5])
    assert change_of(np.arange(2), np.array([[5.0, 1.0]])).tolist() == [0.0]
    assert math.isnan(change_of(np.arange(1), np.array([[5.0]]))[0])


@pytest.mark.parametrize(
    ("by_text", "kind"),
    [
        ([-1.0, -1.0, -1.0], "local"),
        ([-0.99, -0.99], "flat"),
        ([3.0, 3.2, 2.9], "anti-local"),
        ([-5.0, 3.0, -1.5], "flat"),
        ([-7.0], "local"),
        ([math.nan, math.nan], ""),
    ],
)
def test_a_kind_needs_a_nat_and_two_standard_errors(by_text: list[float], kind: str) -> None:
    assert kind_of(np.array(by_text)).kind == kind


def test_texts_are_the_beginnings_of_documents_before_their_later_parts() -> None:
    documents = [
        EncodedDocument(str(n), "", np.arange(count) + 100 * n, np.ones(count, np.int64))
        for n, count in ((1, 25), (2, 12))
    ]
    found = cut(documents, 10, None, 9)
    assert [each[0, 0].item() for each in found] == [100, 200, 110]
    assert all(each.shape == (1, 10) for each in found)
    begun = cut(documents, 10, 7, 2)
    assert [each[0, :2].tolist() for each in begun] == [[7, 100], [7, 200]]
    assert [each.shape[1] for each in begun] == [10, 10]


class Drawn(LanguageModel):
    """Layers of any number and reach, with numbers that are drawn."""

    device, dtype = torch.device("cpu"), torch.float32
    facts = ModelFacts("drawn", "drawn", "drawn", None, 50, "", 0, "")

    def __init__(self, layers: int, heads: int, reach: int) -> None:
        self.shape = layers, heads, reach

    @property
    def attention(self) -> str:
        return "none"

    def hidden(self, tokens: Tensor, rows: int, generator: torch.Generator) -> Tensor:
        raise NotImplementedError

    def logits(self, hidden: Tensor) -> Tensor:
        raise NotImplementedError

    def last_query(self, tokens: Tensor, generator: torch.Generator, take: Callable[[LastQuery], None]) -> None:
        layers, heads, reach = self.shape
        for layer in range(layers):
            distance = torch.arange(reach, -1, -1)
            values = torch.randn(heads, reach + 1, generator=generator).double()
            take(LastQuery(layer, distance, values, values - 0.5 * distance))


@pytest.mark.parametrize(("layers", "heads", "reach"), [(1, 1, 1), (2, 12, 90), (5, 32, 700), (1, 2, 0)])
def test_a_figure_has_a_panel_a_layer_and_a_line_a_head(layers: int, heads: int, reach: int) -> None:
    texts = [torch.zeros(1, reach + 1, dtype=torch.long) for _ in range(2)]
    found = measure_bias(Drawn(layers, heads, reach), texts, 0, [], lambda done: None)
    figure = bias_figure(found, "drawn")
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in panels] == [f"layer {layer}" for layer in range(layers)]
    assert all(len(axes.lines) == heads for axes in panels)
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named[0] == "head 0"
    assert len(named) == min(heads, 12) or heads > 12
    if reach:
        line = panels[0].lines[0]
        assert np.asarray(line.get_ydata())[-1] == pytest.approx(found[0].fine.added[:, 0, -1].mean())


def test_of_many_layers_some_are_shown_and_others_can_be_asked_for() -> None:
    assert panels_of(range(12), 12) == list(range(12))
    assert panels_of(range(32), 5) == [0, 8, 16, 23, 31]
    assert parse_layers("0,5, 7-9,5") == [0, 5, 7, 8, 9]
    assert parse_layers(None) == []
    with pytest.raises(SpecError, match="is no layer"):
        parse_layers("9-3")


def test_every_column_is_listed_with_its_meaning() -> None:
    result = CliRunner().invoke(app, ["list", "columns"])
    said = " ".join(result.output.split())
    for column in (*bias_tables.BIAS, *bias_tables.BY_DISTANCE):
        assert column.name in said
    assert "by_distance.parquet" in said
