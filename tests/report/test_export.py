"""Values for other programs, read back with their own parser and held against their own schema."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import lpe_eval
from lpe_eval.cli import app
from lpe_eval.commands.export import export
from lpe_eval.errors import SpecError, UnknownName
from tests.support.own_models import Bigram

NAME = "own/<b> \u00e9"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two models, one with a name from elsewhere, one of which overflows."""
    place = tmp_path_factory.mktemp("export")
    text = place / "text.txt"
    text.write_text("alpha beta gamma delta epsilon zeta eta theta " * 60)
    broken = Bigram()
    broken.table.data[ord("a")] = math.inf
    lpe_eval.ppl({"own": Bigram(), "broken": broken}, [32, 64], data=text, max_tokens=1500, out=place / "first")
    rows = place / "first" / "rows.csv"
    rows.write_text(rows.read_text(encoding="utf-8").replace(",own,", f",{NAME},"), encoding="utf-8")
    return place / "first"


REQUIRED = {
    "": {"schema_version", "evaluation_id", "retrieved_timestamp", "source_metadata", "model_info", "eval_library",
         "evaluation_results"},
    "source_metadata": {"source_type", "source_organization_name", "evaluator_relationship"},
    "eval_library": {"name", "version"},
    "model_info": {"name", "id", "additional_details"},
}  # fmt: skip
"""What their schema 0.3.0 asks for; at the top nothing else may stand but `evaluation_timestamp` and details."""
OF_RESULT = {"evaluation_name", "source_data", "metric_config", "score_details"}


def fits(record: dict[str, Any]) -> None:
    """What their schema says of the parts that are written here, in our words; `test_their_own_schema` has theirs."""
    for part, names in REQUIRED.items():
        assert names <= set(record[part] if part else record), part
    assert set(record) <= REQUIRED[""] | {"evaluation_timestamp"}
    details = record["model_info"]["additional_details"]
    assert details["deployment_type"] == "self_deployed" and details["model_availability"] in (
        "open_weights",
        "unknown",
    )
    texts = [details, record["eval_library"]["additional_details"]]
    for each in record["evaluation_results"]:
        assert set(each) == OF_RESULT | {"evaluation_result_id"}
        assert each["source_data"]["source_type"] in ("other", "hf_dataset") and each["source_data"]["dataset_name"]
        assert {"min_score", "max_score"} <= set(each["metric_config"])
        assert all(
            type(value) in (str, int, float, bool) for value in each["metric_config"]["metric_parameters"].values()
        )
        texts += [each["score_details"]["details"], each["source_data"]["additional_details"]]
    assert all(type(value) is str for part in texts for value in part.values())
    json.dumps(record, allow_nan=False)


def test_their_own_schema(run: Path, tmp_path: Path):
    theirs, jsonschema = pytest.importorskip("every_eval_ever"), pytest.importorskip("jsonschema")
    schema = json.loads((Path(theirs.__file__).parent / "schemas/eval.schema.json").read_text("utf-8"))
    for folder in (run, lpe_eval.che("rope", [20], tasks="parity_check", samples=16, out=tmp_path / "che").folder):
        for path in export(folder, "every-eval-ever", tmp_path / folder.name):
            jsonschema.validate(json.loads(path.read_text("utf-8")), schema)


def test_records_of_every_eval_ever_fit_their_schema_and_hold_the_rows(run: Path, tmp_path: Path):
    rows = lpe_eval.read(run).rows
    (path,) = export(run, "every-eval-ever", tmp_path / "a", ["organization=Lab", "relationship=third_party"])
    record = json.loads(path.read_text(encoding="utf-8"))
    fits(record)
    assert path.relative_to(tmp_path / "a").parts[:3] == ("data", "lpe_eval_custom", "unknown")
    own = rows[(rows.model == NAME) & (rows.status == "ok")]
    stored = {(row.protocol, row.length, row.metric): row for row in own.itertuples()}
    for each in record["evaluation_results"]:
        place, config = each["metric_config"]["metric_parameters"], each["metric_config"]
        row = stored.pop((place["protocol"], place["length"], config["metric_id"].removeprefix("lpe_eval.")))
        found = each["score_details"]
        assert found["score"] == row.value and config["lower_is_better"] is True
        assert found["uncertainty"]["standard_error"] == {"value": row.stderr, "method": row.ci_method}
        ends = found["uncertainty"]["confidence_interval"]
        assert (ends["lower"], ends["upper"], ends["confidence_level"]) == (row.ci_low, row.ci_high, 0.95)
        assert found["uncertainty"]["num_bootstrap_samples"] == 1000 and found["details"]["n_tokens"] == str(
            row.n_tokens
        )
    assert not stored and record["model_info"]["name"] == NAME
    assert record["source_metadata"]["source_organization_name"] == "Lab"
    (again,) = export(run, "every_eval_ever", tmp_path / "b", ["organization=Lab", "relationship=third_party"])
    assert again.read_bytes() == path.read_bytes() and again.name == path.name


def test_results_of_the_hub_are_read_by_its_own_parser(run: Path, tmp_path: Path):
    hub = pytest.importorskip("huggingface_hub")
    given = ["dataset=org/texts", "task-id={protocol}-at-{length}", "source=https://example.org/logs"]
    (path,) = export(run, "eval-results", tmp_path, given)
    assert path == tmp_path / ".eval_results" / "own_b.yaml"
    entries = hub.parse_eval_result_entries(yaml.safe_load(path.read_text(encoding="utf-8")))
    rows = lpe_eval.read(run).rows
    rows = rows[(rows.model == NAME) & (rows.metric == "perplexity")]
    assert [each.value for each in entries] == rows.value.tolist()
    assert [each.task_id for each in entries] == [f"{row.protocol}-at-{row.length}" for row in rows.itertuples()]
    assert {each.dataset_id for each in entries} == {"org/texts"}
    assert all(each.source_url == "https://example.org/logs" and "perplexity" in each.notes for each in entries)
    assert hub.eval_result_entries_to_yaml(entries) == yaml.safe_load(path.read_text(encoding="utf-8"))


def test_problems_are_exported_too(tmp_path: Path):
    made = lpe_eval.che("rope", [20], tasks="parity_check", samples=16)
    (path,) = export(made.folder, "every-eval-ever", tmp_path)
    by_metric = {
        each["metric_config"]["metric_id"]: each for each in json.loads(path.read_text("utf-8"))["evaluation_results"]
    }
    assert set(by_metric) == {"accuracy", "exact_match"}
    assert not any(each["metric_config"]["lower_is_better"] for each in by_metric.values())
    assert all(each["metric_config"]["max_score"] == 1.0 for each in by_metric.values())
    assert by_metric["accuracy"]["evaluation_name"] == "lpe_eval.parity_check.quick.20"


@pytest.mark.parametrize(
    ("form", "options", "kind", "told"),
    [
        ("every-eval-evr", [], UnknownName, "every_eval_ever"),
        ("every-eval-ever", ["organisation=Lab"], UnknownName, "did you mean organization"),
        ("every-eval-ever", ["organization"], SpecError, "not NAME=VALUE"),
        ("eval-results", [], SpecError, "dataset=org/name"),
        ("eval-results", ["dataset=texts"], SpecError, "not 'texts'"),
        ("eval-results", ["dataset=a/b", "metric=bleu"], UnknownName, "bleu"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(form, options, kind, told: str, run: Path, tmp_path: Path):
    with pytest.raises(kind, match=told):
        export(run, form, tmp_path, options)
    assert not list(tmp_path.iterdir())


def test_it_is_typed(run: Path, tmp_path: Path):
    typed = ["export", str(run), "--format", "every-eval-ever", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, typed)
    assert result.exit_code == 0 and result.output.strip().endswith(".json")
    assert CliRunner().invoke(app, ["export", str(tmp_path), "--format", "every-eval-ever"]).exit_code == 2
