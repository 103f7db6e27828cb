"""Training: a schedule in closed form, reproducible steps, resuming, and a model that learns."""

import io
import math
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lpe_eval.commands.train import run_spec
from lpe_eval.errors import DataError, DivergedError, OutputError
from lpe_eval.run import Settings
from lpe_eval.spec.train_spec import TrainSpec
from lpe_eval.train.text import Trainer, learning_rate

CPU = torch.device("cpu")
STREAM = torch.arange(4000, dtype=torch.int32) % 7
"""Each token decides the next one, so a model that learns reaches a loss near zero."""


def spec(encoding: str = "alibi", **changes) -> TrainSpec:
    model = {"encoding": encoding, "width": 16, "layers": 1, "heads": 2, "mlp_width": 32, "train_length": 16}
    fields = {
        "name": "small",
        "model": model,
        "corpus": "python-stdlib",
        "steps": 6,
        "batch_tokens": 64,
        "warmup_steps": 2,
        "validate_every": 3,
        "validation_tokens": 64,
        "weights_dtype": "float32",
    }
    return TrainSpec.model_validate({**fields, **changes})


@contextmanager
def silent(total: int, unit: str):
    yield lambda done, description=None: None


def train(recipe: TrainSpec, out: Path, overwrite: bool = False) -> Path:
    return run_spec(recipe, Settings(out, overwrite, silent, lambda sentence: None, "cpu")).folder


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine():
    recipe = spec(steps=102, warmup_steps=2, learning_rate=1.0, final_rate=0.1)
    assert [learning_rate(recipe, step) for step in (0, 1, 2)] == [0.5, 1.0, 1.0]
    assert learning_rate(recipe, 52) == pytest.approx(0.1 + 0.9 * 0.5)
    assert learning_rate(recipe, 101) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.99)))


def test_a_model_learns_a_text_in_which_each_token_decides_the_next():
    trainer = Trainer(spec(steps=150, learning_rate=0.01, batch_tokens=128), STREAM, STREAM, CPU)
    before = trainer.validate()
    assert before == pytest.approx(math.log(258), rel=0.05)
    list(trainer.run())
    assert trainer.validate() < 0.05


def test_validation_scores_every_target_of_its_windows_once():
    trainer = Trainer(spec(validation_tokens=48), STREAM, STREAM, CPU)
    tokens = STREAM[:49].long()
    losses = [
        torch.nn.functional.cross_entropy(
            trainer.model.logits(trainer.model(tokens[at : at + 16][None], torch.Generator()))[0],
            tokens[at + 1 : at + 17],
        ).item()
        for at in (0, 16, 32)
    ]
    assert trainer.validate() == pytest.approx(sum(losses) / 3, rel=1e-6)


def test_two_encodings_see_the_same_text_in_the_same_order(monkeypatch: pytest.MonkeyPatch):
    seen: dict[str, list] = {}
    for encoding in ("alibi", "rope"):
        trainer = Trainer(spec(encoding), STREAM + 0, STREAM, CPU)
        original = trainer._loss
        starts: list = seen.setdefault(encoding, [])
        monkeypatch.setattr(trainer, "_loss", lambda *a, o=original, s=starts: (s.append(a[1].tolist()), o(*a))[1])
        list(trainer.run())
    assert seen["alibi"] == seen["rope"]


def test_a_run_that_was_stopped_and_resumed_ends_with_the_same_weights():
    whole, first, second = (Trainer(spec(), STREAM, STREAM, CPU) for _ in range(3))
    list(whole.run())
    for step in first.run():
        if step.step == 3:
            break
    second.restore(first.snapshot())
    assert second.step == 3
    steps = list(second.run())
    assert [step.step for step in steps] == [4, 5, 6]
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_not_finite_ends_the_training_with_a_sentence():
    trainer = Trainer(spec(), STREAM, STREAM, CPU)
    with torch.no_grad():
        trainer.model.embedding.weight[0] = float("inf")
    with pytest.raises(DivergedError, match="diverged at step 1"):
        list(trainer.run())


def test_a_text_shorter_than_a_window_is_refused():
    with pytest.raises(DataError, match="the validation text has 10 tokens; a window needs 17"):
        Trainer(spec(), STREAM, STREAM[:10], CPU)


def text_folder(folder: Path) -> str:
    for split, count in (("train", 40), ("valid", 10)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            (folder / split / f"{number}.txt").write_text(f"document {number} says {'na ' * 20}\n")
    return str(folder)


def test_a_killed_training_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = spec(corpus=text_folder(tmp_path / "text"), steps=9)
    train(recipe, tmp_path / "whole")

    calls = 0
    original = Trainer._train_step

    def dies_at_the_eighth(self):
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(Trainer, "_train_step", dies_at_the_eighth)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "killed")
    assert (tmp_path / "killed" / "training_state.pt").exists()
    train(recipe, tmp_path / "killed")
    assert calls == 8 + 3
    assert not (tmp_path / "killed" / "training_state.pt").exists()
    whole, killed = (load_file(tmp_path / each / "model.safetensors") for each in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    logs = [(tmp_path / each / "training.csv").read_text().splitlines() for each in ("whole", "killed")]
    without_seconds = [[line.rpartition(",")[0] for line in log] for log in logs]
    assert without_seconds[0] == without_seconds[1]


def test_the_folder_says_what_made_it(tmp_path: Path):
    recipe = spec(corpus=text_folder(tmp_path / "text"))
    folder = train(recipe, tmp_path / "out")
    assert TrainSpec.model_validate(yaml.safe_load((folder / "spec.yaml").read_text())) == recipe
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "model.safetensors", "spec.yaml", "training.csv", "provenance.json", "run.json",
    }  # fmt: skip


def test_a_folder_with_another_training_is_refused_unless_overwritten(tmp_path: Path):
    text = text_folder(tmp_path / "text")
    train(spec(corpus=text), tmp_path / "out")
    with pytest.raises(OutputError, match="holds another run"):
        train(spec(corpus=text, seed=2), tmp_path / "out")
    train(spec(corpus=text, seed=2), tmp_path / "out", overwrite=True)


def test_a_damaged_snapshot_is_said_and_not_used(tmp_path: Path):
    recipe = spec(corpus=text_folder(tmp_path / "text"))
    train(recipe, tmp_path / "out")
    buffer = io.BytesIO()
    torch.save({"step": 1}, buffer)
    for damage in (b"", b"junk", buffer.getvalue()):
        (tmp_path / "out" / "training_state.pt").write_bytes(damage)
        with pytest.raises(OutputError, match=r"training_state\.pt is damaged"):
            train(recipe, tmp_path / "out")


def test_products_in_bfloat16_leave_the_weights_and_the_scores_of_attention_in_float32(monkeypatch: pytest.MonkeyPatch):
    seen = []
    trainer = Trainer(spec("kerple_log", compute_dtype="bfloat16"), STREAM, STREAM, CPU)
    encoding = trainer.model.layer_encodings[0]
    original = encoding.bias_by_offset
    monkeypatch.setattr(encoding, "bias_by_offset", lambda at: (seen.append(original(at).dtype), original(at))[1])
    list(trainer.run())
    assert set(seen) == {torch.float32}
    assert {each.dtype for each in trainer.model.parameters()} == {torch.float32}
    exact = Trainer(spec("kerple_log"), STREAM, STREAM, CPU)
    list(exact.run())
    assert trainer.validate() == pytest.approx(exact.validate(), rel=0.01)
    assert trainer.validate() != exact.validate()
