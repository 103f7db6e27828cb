"""A study: every training of it is its own process, its own folder, and its own failure."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.errors import SpecError
from lpe_eval.report.folders.train import LogRow, ended_training
from lpe_eval.report.model_card import last_tenth, model_card
from lpe_eval.spec.fingerprint import spec_text
from lpe_eval.spec.study_spec import StudySpec
from lpe_eval.spec.tasks import parse_spec
from lpe_eval.spec.train_spec import TrainSpec

ROOT = Path(__file__).parents[2]

RECIPE = {
    "model": {"width": 16, "layers": 1, "heads": 2, "mlp_width": 32, "train_length": 16},
    "corpus": "python-stdlib",
    "steps": 20,
    "batch_tokens": 64,
    "warmup_steps": 2,
    "validate_every": 2,
    "validation_tokens": 64,
}


def fields(**changes) -> dict:
    return {"kind": "study", "name": "small", "recipe": RECIPE, "encodings": {"a": "alibi", "r": "rope"}, **changes}


def test_every_encoding_gets_the_recipe_and_only_the_seed_and_the_encoding_differ():
    spec = StudySpec.model_validate(fields(further_seeds={"a": [2, 3]}, on_cpu={"steps": 10}))
    names = {each.name: each for each in spec.trainings(on_gpu=True)}
    assert list(names) == ["a", "r", "a-seed2", "a-seed3"]
    assert {name: each.seed for name, each in names.items()} == {"a": 1, "r": 1, "a-seed2": 2, "a-seed3": 3}
    plain = [each.model_dump(exclude={"name": True, "seed": True, "model": {"encoding"}}) for each in names.values()]
    assert all(each == plain[0] for each in plain)
    assert {each.steps for each in spec.trainings(on_gpu=True)} == {20}
    assert {each.steps for each in spec.trainings(on_gpu=False)} == {10}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipe": {**RECIPE, "seed": 3}}, "the recipe of a study cannot set 'seed'"),
        ({"further_seeds": {"b": [2]}}, "further_seeds names 'b'"),
        ({"further_seeds": {"a": [1]}}, "holds a seed twice"),
        ({"encodings": {}}, "encodings"),
        ({"recipe": {**RECIPE, "stepz": 3}}, "stepz"),
    ],
)
def test_a_study_that_is_none_is_refused(changes: dict, said: str):
    with pytest.raises(SpecError, match=said):
        parse_spec(fields(**changes), StudySpec, "study.yaml")


def test_a_study_trains_each_model_keeps_what_is_done_and_names_what_failed(tmp_path: Path):
    file, out = tmp_path / "study.yaml", tmp_path / "out"
    broken = {"name": "mep", "kernels": ["tanh"]}  # Its constants exist for 12 heads only.
    file.write_text(yaml.safe_dump(fields(encodings={"a": "alibi", "m": broken})))
    first = CliRunner().invoke(app, ["run", str(file), "--out", str(out), "--device", "cpu", "--jobs", "2"])
    assert first.exit_code == 4
    assert "1 trainings of the study failed (m: " in " ".join(first.output.split())
    card = (out / "a" / "README.md").read_text()
    assert "| steps | 20 of 64 tokens: 1,280 tokens |" in card
    weights = out / "a" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    file.write_text(yaml.safe_dump(fields(encodings={"a": "alibi"})))
    again = CliRunner().invoke(app, ["run", str(file), "--out", str(out), "--device", "cpu"])
    assert again.exit_code == 0
    assert weights.stat().st_mtime_ns == before
    (spec,) = StudySpec.model_validate(fields(encodings={"a": "alibi"})).trainings(on_gpu=False)
    assert ended_training(out / "a", spec_text(spec)) is not None
    assert ended_training(out / "a", spec_text(spec) + "#") is None
    assert ended_training(tmp_path, spec_text(spec)) is None


@pytest.mark.slow
def test_a_study_that_failed_before_a_step_says_so_once_and_leaves_its_folders_to_the_next(tmp_path: Path):
    file, out = tmp_path / "study.yaml", tmp_path / "out"
    command = ["run", str(file), "--out", str(out), "--device", "cpu", "--jobs", "2"]
    file.write_text(yaml.safe_dump(fields(recipe={**RECIPE, "corpus": str(tmp_path / "nowhere")})))
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 4 and " ".join(first.output.split()).count("nowhere") == 1
    assert "2 trainings of the study failed (a, r: " in " ".join(first.output.split())
    file.write_text(yaml.safe_dump(fields()))
    second = CliRunner().invoke(app, command)
    assert second.exit_code == 0, second.output
    assert all((out / name / "model.safetensors").is_file() for name in "ar")


def test_a_card_says_whether_the_validation_curve_is_flat():
    def rows(losses: list[float]) -> list[LogRow]:
        return [LogRow(10 * n, 1.0, 1.0, 1e-3, loss, 1.0) for n, loss in enumerate(losses, start=1)]

    falling = rows([2.0] * 8 + [1.0, 0.98])
    assert last_tenth(falling) == pytest.approx(0.02)
    assert last_tenth(rows([1.0] * 9)) is None
    spec = TrainSpec.model_validate({**RECIPE, "name": "a", "model": {**RECIPE["model"], "encoding": "alibi"}})
    facts = {
        "environment": {"device": "some CPU", "threads": 1},
        "corpus": {"describe": {"python": "3.11"}, "train": "abc"},
        "seconds": 120.0,
    }
    assert "**has not flattened**: the last tenth of the steps lowered the loss by 2.00%" in model_card(
        spec, falling, facts
    )
    assert "has flattened" in model_card(spec, rows([2.0] * 8 + [1.0, 0.995]), facts)
    assert "was not measured" in model_card(spec, rows([1.0] * 3), facts)
