"""Runs, trainings and problems that take a second or two, for the tests that end them early."""

import time
from pathlib import Path

import yaml

from lpe_eval.spec.fingerprint import spec_text
from tests.support.che_runs import tiny
from tests.support.native_checkpoints import checkpoint
from tests.support.warm import Warm


def furnished(folder: Path) -> Path:
    """A folder with three checkpoints, a text, and the files of a training and of a protocol of problems."""
    for encoding in ("alibi", "rope", "kerple_log"):
        checkpoint(folder / encoding, encoding)
    for name in ("train", "valid", "test"):
        (folder / "text" / name).mkdir(parents=True)
        for number in range(6):
            words = " ".join(f"word{(number * 7 + each * each) % 91}" for each in range(60))
            (folder / "text" / name / f"{number}.txt").write_text(words)
    recipe = {
        "kind": "train", "name": "small", "corpus": "text", "steps": 60, "batch_tokens": 64, "warmup_steps": 5,
        "validate_every": 4, "validation_tokens": 64,
        "model": {"encoding": "alibi", "width": 16, "layers": 1, "heads": 2, "mlp_width": 32, "train_length": 16},
    }  # fmt: skip
    (folder / "train.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "tiny.yaml").write_text(spec_text(tiny(name="tiny", steps=40, check_every=4)))
    return folder


def run_undisturbed(lpe_eval: Warm, place: Path) -> float:
    """Seconds of a run that nothing disturbs; one lies in `run`, and such a training in `trained`."""
    assert lpe_eval.run(ppl("run"), place).code == 0
    assert lpe_eval.run(train("trained"), place).code == 0
    return seconds_of(lpe_eval, ppl("timed run"), place)


def ppl(out: str, *models: str) -> list[str]:
    chosen = [part for name in models or ("alibi", "rope") for part in ("-m", name)]
    text = ["--data", "text", "--split", "test", "--lengths", "16,32,64", "--max-tokens", "1500"]
    return ["ppl", *chosen, *text, "-q", "--out", out]


def recall(out: str) -> list[str]:
    models = [part for name in ("alibi", "rope", "kerple_log") for part in ("-m", name)]
    asked = [
        "--data",
        "text",
        "--split",
        "test",
        "--lengths",
        "32,64,128",
        "--tests",
        "repeat,needle",
        "--prompts",
        "2",
    ]
    return ["recall", *models, *asked, "--repeat-tokens", "128", "-q", "--out", out]


def train(out: str) -> list[str]:
    return ["run", "train.yaml", "-q", "--out", out]


def che(out: str) -> list[str]:
    what = ["--encoding", "rope,alibi", "--tasks", "even_pairs,parity_check,bucket_sort", "--protocol", "tiny.yaml"]
    return ["che", "--train", *what, "--device", "cpu", "-q", "--out", out]


def seconds_of(lpe_eval: Warm, argv: list[str], place: Path) -> float:
    began = time.monotonic()
    assert lpe_eval.run(argv, place).code == 0
    return time.monotonic() - began
