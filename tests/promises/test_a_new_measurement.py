"""A measurement from another package, of three small files, inherits everything that ours have."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PLUGIN = Path(__file__).parents[1] / "plugin"
ASKED = ("accuracy", "-m", "alibi", "-m", "rope", "--lengths", "64,256", "--max-tokens", "3000", "--data", "text")


class Installed:
    """Commands of an installation that has the plugin, in a folder of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        site = home / "site"
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        subprocess.run([*install, "--target", str(site), str(PLUGIN)], check=True, capture_output=True, text=True)
        path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
        self.environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "lpe_eval", *arguments]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment, cwd=self.home
        )

    def run(self, *arguments: str, code: int = 0) -> str:
        process = self.start(*arguments)
        out, told = process.communicate(timeout=300)
        assert process.returncode == code, out + told
        assert "Traceback" not in told
        return out + told


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    home = tmp_path_factory.mktemp("home")
    (home / "text").mkdir()
    for name in range(4):
        words = " ".join(f"word{(each * each + name) % 97}" for each in range(400))
        (home / "text" / f"{name}.txt").write_text(words)
    found = Installed(home)
    found.run(*ASKED, "--out", "whole", "-q")
    return found


def test_it_is_a_command_with_the_flags_of_its_spec_and_prints_a_table(installed: Installed):
    assert "accuracy" in installed.run("--help")
    told = " ".join(installed.run("accuracy", "--help").split())
    for part in ("--model", "-m", "--lengths", "Tokens per window", "--max-tokens", "--baseline", "--overwrite"):
        assert part in told, part
    told = installed.run(*ASKED, "--out", "whole", "-q")
    for part in ("alibi", "rope", "64", "256", "±", "first_guess"):
        assert part in told, part
    assert "already holds 4 of 4 cells" in installed.run(*ASKED, "--out", "whole")
    planned = installed.run(*ASKED, "--out", "not-made", "--dry-run")
    assert "max_tokens" in planned and "accuracy makes no estimate" in planned
    assert not (installed.home / "not-made").exists()


def test_bad_input_is_one_sentence(installed: Installed):
    for arguments, sentence in [
        (("accuracy", "-m", "alibi", "--lengths", "many"), "many"),
        (("accuracy", "-m", "alibbi"), "did you mean alibi"),
        (("accuracy", "-m", "alibi", "--seed", "1,2"), "--seed takes one value, not 2"),
        (("accuracy", "-m", "alibi", "--max-tokens", "[1"), "--max-tokens"),
    ]:
        assert sentence in installed.run(*arguments, code=2), sentence


def test_a_model_that_cannot_be_measured_costs_its_own_cells_alone(installed: Installed):
    (installed.home / "broken").mkdir()
    for name in ("config.yaml", "model.safetensors"):
        source = Path(__file__).parents[2] / "lpe_eval" / "released" / "rope" / name
        (installed.home / "broken" / name).write_bytes(
            source.read_bytes()[: -200 if name.startswith("model") else None]
        )
    told = installed.run(*ASKED[:3], "-m", "broken", *ASKED[5:], "--out", "partly", "-q", code=4)
    assert "failed: rope at 64, 256" in told
    rows = (installed.home / "partly" / "accuracy.csv").read_text().splitlines()
    assert len(rows) == 5 and sum("failed" in row for row in rows) == 2


@pytest.mark.slow
def test_what_is_killed_goes_on_and_ends_with_the_same_bytes(installed: Installed):
    whole = (installed.home / "whole" / "accuracy.csv").read_bytes()
    for cells in (1, 3):
        folder = installed.home / f"killed-{cells}"
        process = installed.start(*ASKED, "--out", folder.name, "-q")
        until = time.monotonic() + 120
        while len(list(folder.glob("cells/*.json"))) < cells and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        installed.run(*ASKED, "--out", folder.name, "-q")
        assert (folder / "accuracy.csv").read_bytes() == whole


def test_it_is_shown_cited_drawn_compared_and_blessed(installed: Installed):
    told = installed.run("show", "whole")
    for part in ("accuracy of the first guess", "4 ok", "alibi", "lengths", "seed 0", "libraries"):
        assert part in told, part
    assert "press2021alibi" in installed.run("show", "whole", "--cite")
    assert installed.run("plot", "whole", "--out", "drawn").count("accuracy") == 2
    installed.run("compare", "whole", "--bless", "accuracy")
    assert "4 same" in installed.run("compare", "whole", "--baseline", "accuracy")
    swapped = ("accuracy", "-m", "alibi=nope", "-m", "rope", *ASKED[5:])
    assert "worse: alibi" in installed.run(*swapped, "--out", "swapped", "-q", "--baseline", "accuracy", code=3)
    spec = (installed.home / "whole" / "spec.yaml").read_text()
    (installed.home / "again.yaml").write_text(spec)
    installed.run("run", "again.yaml", "--out", "again", "-q")
    rows = [(installed.home / folder / "accuracy.csv").read_bytes() for folder in ("whole", "again")]
    assert rows[0] == rows[1]
