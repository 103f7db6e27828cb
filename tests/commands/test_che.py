"""`lpe-eval che` from flags to files: training, resuming and scoring."""

import importlib.metadata
import sys
from contextlib import contextmanager
from types import ModuleType

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from lpe_eval import registry
from lpe_eval.cli import app
from lpe_eval.commands.che import run_spec
from lpe_eval.data.problem import Problem, all_count, open_problem, uniform_tokens
from lpe_eval.errors import OutputError
from lpe_eval.measure.score_problem import score_problem
from lpe_eval.model.encoder_folder import load_encoder, read_encoder_config
from lpe_eval.run import Settings
from lpe_eval.spec.che_spec import CheSpec
from lpe_eval.spec.encoding_spec import EncodingSpec
from lpe_eval.train import encoders
from lpe_eval.train.problem import ProblemTrainer
from tests.support.che_command import command, lines
from tests.support.che_runs import no_bar, tiny, trained

CPU = torch.device("cpu")


def test_a_training_leaves_rows_checkpoints_and_figures(tmp_path):
    out = tmp_path / "run"
    outcome = trained(out, ["rope", "dape(kerple_log)"], ["even_pairs", "reverse_string"])
    assert (outcome.failed, outcome.misfit) == ("", "")
    rows = lines(out / "che.csv")
    assert len(rows) == 2 * 2 * 2 * 4 * 2  # encodings, tasks, runs, lengths, metrics
    assert {row["in_range"] for row in rows if int(row["length"]) <= 8} == {"1"}
    assert {row["in_range"] for row in rows if int(row["length"]) > 8} == {"0"}
    assert {(row["run_index"], row["seed"], row["learning_rate"]) for row in rows} == {
        ("0", "1", "0.003"),
        ("1", "2", "0.003"),
    }
    assert {row["steps"] for row in rows} == {"6"}
    assert (out / "figures" / "heat_map.png").stat().st_size > 0
    assert (out / "figures" / "length_curves.svg").stat().st_size > 0
    assert [path.name for path in sorted((out / "checkpoints").iterdir())] == ["dape-kerple-log", "rope"]
    assert not list((out / "snapshots").iterdir())
    log = lines(out / "training.csv")
    assert [row["step"] for row in log if row["task"] == "even_pairs" and row["encoding"] == "rope"] == list("224466")


def test_a_row_is_what_the_trained_weights_score(tmp_path):
    protocol = tiny()
    trained(tmp_path, protocol=protocol)
    trainer = ProblemTrainer(open_problem("even_pairs"), EncodingSpec(name="rope"), protocol, CPU)
    looks = list(trainer.run(lambda done: None))
    assert [look.step for look in looks] == [2, 4, 6]
    rows = [row for row in lines(tmp_path / "che.csv") if row["metric"] == "accuracy"]
    for index, model in enumerate(trainer.models):
        for length in (8, 9, 12, 16):
            score = score_problem(
                lambda tokens, draws, model=model: model.eval().logits(model(tokens, draws)),
                *(open_problem("even_pairs"), length, 8, 16, 1, CPU),
            )
            (row,) = [row for row in rows if (row["run_index"], row["length"]) == (str(index), str(length))]
            assert float(row["value"]) == score.accuracy


@pytest.mark.slow
def test_a_killed_and_resumed_training_gives_the_same_table(tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    fields = (["rope", "kerple_log"], ["even_pairs", "bucket_sort"], tiny(dropout=0.1))
    trained(whole, *fields)
    monkeypatch.setattr(encoders, "_SECONDS_BETWEEN_SNAPSHOTS", 0.0)

    def killed_after(steps: int):
        @contextmanager
        def bar(total: int, unit: str):
            done = 0

            def advance(more: int, description: str | None = None) -> None:
                nonlocal done
                done += more
                if done >= steps:
                    raise KeyboardInterrupt

            yield advance

        return bar

    asked = {"encodings": fields[0], "tasks": fields[1], "protocol": fields[2].model_dump()}
    for steps in (5, 5, 9):
        with pytest.raises(KeyboardInterrupt):
            run_spec(CheSpec.model_validate(asked), Settings(cut, False, killed_after(steps), lambda sentence: None))
    assert list((cut / "snapshots").iterdir()), "the training was cut between two looks"
    (damaged,) = list((cut / "snapshots").iterdir())
    trained(cut, *fields)
    assert not damaged.exists()
    for name in ("che.csv", "summary.csv", "training.csv"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    for path in (whole / "checkpoints").rglob("*.*"):
        assert (cut / path.relative_to(whole)).read_bytes() == path.read_bytes()


def test_a_damaged_snapshot_and_a_damaged_cell_are_made_again(tmp_path):
    trained(tmp_path)
    before = (tmp_path / "che.csv").read_bytes()
    (cell,) = (tmp_path / "cells").iterdir()
    cell.write_text("{")
    (tmp_path / "snapshots" / f"{cell.stem}.pt").write_bytes(b"[]\nno state")
    trained(tmp_path)
    assert (tmp_path / "che.csv").read_bytes() == before


def test_a_folder_grows_by_encodings_and_refuses_another_protocol(tmp_path):
    trained(tmp_path, ["rope"])
    told: list[str] = []
    fields = {"encodings": ["alibi", "rope"], "tasks": ["even_pairs"], "protocol": tiny().model_dump()}
    run_spec(CheSpec.model_validate(fields), Settings(tmp_path, False, no_bar, told.append))
    assert told == [f"{tmp_path} already holds 1 of 2 cells; they are kept"]
    assert {row["encoding"] for row in lines(tmp_path / "che.csv")} == {"rope", "alibi"}
    spec = yaml.safe_load((tmp_path / "spec.yaml").read_text())
    assert [each["name"] for each in spec["encodings"]] == ["rope", "alibi"]
    with pytest.raises(OutputError, match="holds another run"):
        trained(tmp_path, ["rope"], protocol=tiny(steps=7))
    (tmp_path / "mine.txt").write_text("mine")
    trained(tmp_path, ["rope"])
    assert (tmp_path / "mine.txt").read_text() == "mine"
    (tmp_path / "run.json").unlink()
    with pytest.raises(OutputError, match="holds files that are no run"):
        trained(tmp_path, ["rope"])


def test_a_solved_task_ends_its_training(tmp_path):
    trained(tmp_path, protocol=tiny(steps=100, solved_at=0.01))
    assert {row["steps"] for row in lines(tmp_path / "che.csv")} == {"2"}


def test_a_run_that_diverges_is_told_and_never_chosen(tmp_path):
    outcome = trained(tmp_path, protocol=tiny(learning_rates=(1e30, 1e-3), seeds=(1,)))
    assert outcome.failed == ""
    lost, fine = ([row for row in lines(tmp_path / "che.csv") if row["run_index"] == index] for index in "01")
    assert {(row["status"], row["value"]) for row in lost} == {("error", "")}
    assert "diverged by step" in lost[0]["note"]
    assert {row["status"] for row in fine} == {"ok"}
    config = read_encoder_config(tmp_path / "checkpoints" / "rope")
    assert config.tasks["even_pairs"].learning_rate == 1e-3


def test_a_checkpoint_holds_the_chosen_run_as_it_was_trained_and_scores_what_its_training_reported(tmp_path):
    out = tmp_path / "run"
    trained(out)
    folder = out / "checkpoints" / "rope"
    config = read_encoder_config(folder)
    assert (config.selection, config.protocol.name) == ("in_range", "smoke")
    rows = [row for row in lines(out / "che.csv") if row["metric"] == "accuracy" and row["in_range"] == "1"]
    chosen = config.tasks["even_pairs"]
    assert chosen.in_range_accuracy == max(float(row["value"]) for row in rows)
    assert {each.dtype for each in load_file(folder / "even_pairs.safetensors").values()} == {torch.float32}
    trainer = ProblemTrainer(open_problem("even_pairs"), EncodingSpec(name="rope"), tiny(), CPU)
    list(trainer.run(lambda done: None))
    loaded = load_encoder(folder, config, "even_pairs", CPU)
    for found, weight in zip(loaded.parameters(), trainer.models[chosen.run_index].parameters(), strict=True):
        assert torch.equal(found, weight)
    result = command("-m", out, "--lengths", "8,30", "--samples", 4, "--out", tmp_path / "scores", "-q")
    assert result.exit_code == 0, result.output
    scored = lines(tmp_path / "scores" / "che.csv")
    assert {(row["length"], row["n_samples"], row["seed"]) for row in scored} == {
        (length, "4", str(chosen.seed)) for length in ("8", "30")
    }
    trained_row = next(row for row in lines(out / "che.csv") if row["run_index"] == str(chosen.run_index))
    lengths = ",".join(sorted({row["length"] for row in lines(out / "che.csv")}, key=int))
    asked = ("--lengths", lengths, "--samples", trained_row["n_samples"], "--out", tmp_path / "again", "-q")
    assert command("-m", out, *asked).exit_code == 0
    values = {
        (row["length"], row["metric"]): row["value"]
        for row in lines(out / "che.csv")
        if row["run_index"] == str(chosen.run_index)
    }
    again = {(row["length"], row["metric"]): row["value"] for row in lines(tmp_path / "again" / "che.csv")}
    assert again == values


def test_compatibility_does_each_quirk_it_names(tmp_path):
    protocol = tiny(dropout=0.5, samples=24, test_lengths=(9, 10))
    plain, compat = tmp_path / "plain", tmp_path / "compat"
    trained(plain, tasks=["stack_manipulation"], protocol=protocol)
    trained(compat, tasks=["stack_manipulation"], protocol=protocol, deepmind_compat=True)
    theirs = lines(compat / "che.csv")
    assert {row["steps"] for row in theirs} == {"7"}
    assert {row["length"] for row in theirs} == {"8", "10"}
    trainer = ProblemTrainer(open_problem("stack_manipulation"), EncodingSpec(name="rope"), protocol, CPU, steps=7)
    list(trainer.run(lambda done: None))
    model = trainer.models[0].train()
    score = score_problem(
        lambda tokens, draws: model.logits(model(tokens, draws, 11)),
        *(open_problem("stack_manipulation"), 10, 24, 16, 1, CPU),
    )
    (row,) = [row for row in theirs if (row["run_index"], row["length"], row["metric"]) == ("0", "10", "accuracy")]
    assert float(row["value"]) == score.official_accuracy(16) != score.accuracy


def test_a_third_party_problem_works_by_name(tmp_path, monkeypatch):
    class FirstBit(Problem):
        title, level, input_size, classes = "First bit", "regular", 2, 2

        @classmethod
        def draw(cls, batch, length, generator, device):
            return uniform_tokens(batch, length, 2, generator, device)

        @classmethod
        def solve(cls, inputs):
            return all_count(inputs[:, :1])

    module = ModuleType("third_party")
    module.FirstBit = FirstBit
    monkeypatch.setitem(sys.modules, "third_party", module)
    FirstBit.__module__ = "third_party"
    point = importlib.metadata.EntryPoint("first_bit", "third_party:FirstBit", "lpe_eval.problems")
    monkeypatch.setattr(registry, "_entry_points", lambda group: (point,) if group == "lpe_eval.problems" else ())
    outcome = trained(tmp_path, tasks=["first_bit"])
    assert outcome.failed == ""
    rows = lines(tmp_path / "che.csv")
    assert {(row["task"], row["task_version"], row["status"]) for row in rows} == {("first_bit", "0", "ok")}


def test_a_stored_spec_runs_again_and_changes_nothing(tmp_path):
    trained(tmp_path / "first", ["rope"])
    again = CliRunner().invoke(app, ["run", str(tmp_path / "first" / "spec.yaml"), "--out", str(tmp_path / "second")])
    assert again.exit_code == 0, again.output
    assert (tmp_path / "first" / "che.csv").read_bytes() == (tmp_path / "second" / "che.csv").read_bytes()


def test_strings_of_a_step_depend_on_the_data_seed_and_its_number_alone():
    problem = open_problem("reverse_string")

    def drawn(encoding: str, step: int, **changes) -> torch.Tensor:
        trainer = ProblemTrainer(problem, EncodingSpec.parse(encoding), tiny(**changes), CPU)
        return trainer._drawn(step)[0].inputs

    one = drawn("rope", 3)
    assert torch.equal(one, drawn("kerple_log", 3, seeds=(7,), learning_rates=(0.1,)))
    assert not torch.equal(one[:, :1], drawn("rope", 4)[:, :1]) or one.shape != drawn("rope", 4).shape
    lengths = {drawn("rope", step).shape[1] for step in range(60)}
    assert lengths == set(range(1, 9))


def test_without_positions_reverse_string_ends_at_its_exact_ceiling():
    protocol = tiny(steps=150, check_every=150, batch=32, samples=256, width=32, heads=4, check_samples=256)
    trainer = ProblemTrainer(open_problem("reverse_string"), EncodingSpec(name="none"), protocol, CPU)
    (look,) = trainer.run(lambda done: None)
    ceiling = open_problem("reverse_string").ceilings(8)["without_positions"]
    # 256 answers of 8 bits that are all one guess: the error of a run's share is about 0.008.
    assert max(look.accuracy) == pytest.approx(ceiling, abs=0.03)
    assert max(look.accuracy) < ceiling + 0.03
