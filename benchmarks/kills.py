"""Kills real processes at drawn moments, goes on, and compares bytes with a run that nothing disturbed.

    PYTHONPATH=. OMP_NUM_THREADS=1 nice -n 15 python benchmarks/kills.py --place /tmp/kills --kills 34

Six kinds of work. `ppl`, `che --train`, `train` and `run study` are killed again and again in one folder, at moments
drawn over the whole time they take, until one ends; then every file that tells no time must be what the undisturbed run
wrote. `compare --bless --overwrite` and `convert --overwrite` replace a folder, and every other kill falls within 20 ms
after the first sign of the new one; after every kill it must be the old one or the new one whole, and the next command
must work.

A study is killed with the trainings that it started, as the end of a job on a cluster does. The other processes are
forked from one that has imported everything, since imports would take most of the time.

What was done is kept in `kills.json` below `--place`: the same command goes on with it. `--show` prints the table.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from lpe_eval.spec.fingerprint import spec_text
from tests.support.che_runs import tiny
from tests.support.native_checkpoints import checkpoint
from tests.support.warm import Warm, warm

STATE = "kills.json"
MOST_IN_A_ROW = 8
COUNTS = ("kills", "folders", "different", "errors")
SHAPE = {"width": 16, "layers": 1, "heads": 2, "mlp_width": 32, "train_length": 16}
RECIPE = {
    "corpus": "text", "steps": 60, "batch_tokens": 64, "warmup_steps": 5, "validate_every": 4, "validation_tokens": 64,
    "model": SHAPE,
}  # fmt: skip
KEPT = {
    "ppl": ("rows.csv", "by_document.parquet", "by_position.parquet", "spec.yaml", "run.json"),
    "che --train": (
        "che.csv", "summary.csv", "training.csv", "by_string.parquet", "spec.yaml", "run.json", "checkpoints/*/*",
    ),
    "train": ("model.safetensors", "config.yaml", "spec.yaml"),
    "run study": ("*/model.safetensors", "*/config.yaml", "*/spec.yaml", "spec.yaml"),
    "--bless": ("*",),
    "convert": ("*",),
}  # fmt: skip
"""By kind of work: the files that are the same after any number of kills."""


def prepare(place: Path) -> None:
    """Models, text and specs."""
    for number, encoding in enumerate(("alibi", "rope")):
        checkpoint(place / encoding, encoding, seed=number)
    for name in ("train", "valid", "test"):
        (place / "text" / name).mkdir(parents=True, exist_ok=True)
        for number in range(6):
            words = " ".join(f"word{(number * 7 + each * each) % 91}" for each in range(60))
            (place / "text" / name / f"{number}.txt").write_text(words)
    training = {"kind": "train", "name": "small", **RECIPE, "model": {"encoding": "alibi", **SHAPE}}
    (place / "train.yaml").write_text(yaml.safe_dump(training))
    study = {"kind": "study", "name": "small", "recipe": RECIPE, "encodings": {"a": "alibi", "r": "rope"}}
    (place / "study.yaml").write_text(yaml.safe_dump(study))
    (place / "tiny.yaml").write_text(spec_text(tiny(name="tiny", steps=40, check_every=4)))


def ppl(out: str, *models: str) -> list[str]:
    """Arguments that measure models into a folder."""
    chosen = [part for name in models for part in ("-m", name)]
    text = ["--data", "text", "--split", "test", "--lengths", "16,32,64", "--max-tokens", "1500"]
    return ["ppl", *chosen, *text, "-q", "--out", out]


def che(out: str) -> list[str]:
    """Arguments that train encoders into a folder."""
    what = ["--encoding", "rope,alibi", "--tasks", "even_pairs,parity_check", "--protocol", "tiny.yaml"]
    return ["che", "--train", *what, "--device", "cpu", "-q", "--out", out]


RESUMED: dict[str, Callable[[str], list[str]]] = {
    "ppl": lambda out: ppl(out, "alibi", "rope"),
    "che --train": che,
    "train": lambda out: ["run", "train.yaml", "-q", "--device", "cpu", "--out", out],
    "run study": lambda out: ["run", "study.yaml", "-q", "--device", "cpu", "--jobs", "2", "--out", out],
}
"""What goes on in its folder after a kill."""
REPLACED: dict[str, Callable[[str, int], list[str]]] = {
    "--bless": lambda name, which: ["compare", f"run-{which}", "--bless", name, "--overwrite"],
    "convert": lambda name, which: ["convert", ("alibi", "rope")[which], name, "--overwrite"],
}
"""What replaces a folder by the one or the other of two."""


KINDS = ("--bless", "convert", "ppl", "train", "che --train", "run study")


def content(folder: Path, patterns: Sequence[str]) -> dict[str, bytes]:
    """The files of a folder that match, by their names in it."""
    found = [path for pattern in patterns for path in folder.glob(pattern)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.is_file()}


def run(helper: Warm, kind: str, argv: list[str], place: Path, after: float | None = None) -> int:
    """Exit code of a command that is killed after so many seconds, with every process that it started."""
    if kind != "run study":
        return helper.wait(helper.start(argv, place), after).code
    command = [sys.executable, "-m", "lpe_eval", *argv]
    with (place / "study.log").open("ab") as log:
        study = subprocess.Popen(command, cwd=place, stdout=log, stderr=log, start_new_session=True)
    try:
        return study.wait(after)
    except subprocess.TimeoutExpired:
        os.killpg(study.pid, signal.SIGKILL)
        return study.wait()


def run_until_written(helper: Warm, argv: list[str], place: Path, target: Path, tally: "Tally", kind: str) -> int:
    """Exit code of a command that is killed soon after it has begun to write a folder in place of `target`."""
    started = helper.start(argv, place)
    end = time.monotonic() + 10 * tally.of(kind)["seconds"]
    before = set(target.parent.glob(f".{target.name}.*"))
    while set(target.parent.glob(f".{target.name}.*")) <= before and time.monotonic() < end:
        time.sleep(0.0005)
    return helper.wait(started, 0.02 * tally.draw(kind) / tally.of(kind)["seconds"]).code


class Tally:
    """What was done of each kind of work, on disk after every step."""

    def __init__(self, place: Path, seed: int) -> None:
        self._path, self._seed = place / STATE, seed
        self.kinds: dict[str, dict[str, float]] = {}
        if self._path.exists():
            self.kinds = json.loads(self._path.read_text())

    def of(self, kind: str) -> dict[str, float]:
        """What was done of a kind of work; `seconds` is the time that it takes undisturbed, 0 before that is known."""
        return self.kinds.setdefault(kind, dict.fromkeys((*COUNTS, "tries", "seconds"), 0))

    def add(self, kind: str, **more: float) -> None:
        """Counts what was done."""
        for name, number in more.items():
            self.of(kind)[name] += number
        self._path.with_suffix(".new").write_text(json.dumps(self.kinds))
        self._path.with_suffix(".new").replace(self._path)

    def draw(self, kind: str) -> float:
        """Seconds until the next kill; which part of the time that the work takes depends on the seed alone."""
        self.add(kind, tries=1)
        moment = random.Random(f"{self._seed} {kind} {self.of(kind)['tries']}").uniform(0, 1.05)
        return moment * self.of(kind)["seconds"]


def undisturbed(helper: Warm, place: Path, kind: str, argv: list[str]) -> float:
    """Runs a command to its end; gives its seconds."""
    began = time.monotonic()
    if run(helper, kind, argv, place):
        raise SystemExit(f"lpe-eval {' '.join(argv)} does not work undisturbed in {place}")
    return time.monotonic() - began


def kill_resumed(helper: Warm, place: Path, kind: str, tally: Tally, kills: int) -> None:
    """Work that goes on in its folder: killed until it ends, then compared."""
    argv, slug = RESUMED[kind], kind.replace(" ", "")
    if not tally.of(kind)["seconds"]:
        tally.add(kind, seconds=undisturbed(helper, place, kind, argv(f"whole-{slug}")))
    whole = content(place / f"whole-{slug}", KEPT[kind])
    while tally.of(kind)["kills"] < kills:
        out = f"killed-{slug}-{tally.of(kind)['folders']}"
        for _ in range(MOST_IN_A_ROW):
            code = run(helper, kind, argv(out), place, tally.draw(kind))
            if code != -signal.SIGKILL:
                tally.add(kind, errors=int(code != 0))
                break
            tally.add(kind, kills=1)
        code = run(helper, kind, argv(out), place)
        same = content(place / out, KEPT[kind]) == whole
        tally.add(kind, folders=1, different=int(not same), errors=int(code != 0))


def kill_replaced(helper: Warm, place: Path, kind: str, tally: Tally, kills: int) -> None:
    """Work that replaces a folder: compared after every kill."""
    argv, name = REPLACED[kind], kind.strip("-")
    target = place / ("results/baselines" if kind == "--bless" else "") / name
    whole, seconds = [], 0.0
    for which in (0, 1):
        if kind == "--bless":
            undisturbed(helper, place, kind, ppl(f"run-{which}", f"same={('alibi', 'rope')[which]}"))
        seconds = undisturbed(helper, place, kind, argv(name, which))
        whole.append(content(target, KEPT[kind]))
    if not tally.of(kind)["seconds"]:
        tally.add(kind, seconds=seconds)
    while tally.of(kind)["kills"] < kills:
        which = int(tally.of(kind)["tries"]) % 2
        if tally.of(kind)["tries"] // 2 % 2:
            code = run_until_written(helper, argv(name, which), place, target, tally, kind)
        else:
            code = run(helper, kind, argv(name, which), place, tally.draw(kind))
        killed, found = code == -signal.SIGKILL, content(target, KEPT[kind])
        # After a kill the first or the second folder, and at the end the one that was asked for.
        right = found in whole if killed else found == whole[which]
        failed = code not in (0, -signal.SIGKILL)
        tally.add(kind, kills=int(killed), folders=1, different=int(not right), errors=int(failed))
    code = run(helper, kind, argv(name, 0), place)
    wrong = content(target, KEPT[kind]) != whole[0] or any(target.parent.glob(f".{name}*"))
    tally.add(kind, folders=1, different=int(wrong), errors=int(code != 0))


def table(tally: Tally) -> str:
    """What was done, as Markdown."""
    lines = ["| work | kills | folders compared | other bytes | errors |", "|---|---|---|---|---|"]
    rows = {f"`{kind}`": done for kind, done in tally.kinds.items()}
    rows["all"] = {name: sum(done[name] for done in tally.kinds.values()) for name in COUNTS}
    lines += [f"| {kind} | {' | '.join(f'{done[name]:g}' for name in COUNTS)} |" for kind, done in rows.items()]
    return "\n".join(lines)


def main() -> None:
    """Reads the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place", type=Path, required=True, help="folder of everything; is gone on with")
    parser.add_argument("--kills", type=int, default=34, help="of each kind of work")
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--only", nargs="*", default=KINDS, help="kinds of work")
    parser.add_argument("--show", action="store_true", help="print what was done and do nothing")
    asked = parser.parse_args()
    asked.place.mkdir(parents=True, exist_ok=True)
    place, tally = asked.place.resolve(), Tally(asked.place.resolve(), asked.seed)
    if not asked.show:
        if not (place / "train.yaml").exists():
            prepare(place)
        (place / "warm").mkdir(exist_ok=True)
        with warm(place / "warm") as helper:
            for kind in asked.only:
                kill = kill_resumed if kind in RESUMED else kill_replaced
                kill(helper, place, kind, tally, asked.kills)
    print(table(tally))


if __name__ == "__main__":
    main()
