"""One model held by two ranks of a real torchrun: one process's values, and nobody waits for a rank that is gone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from lpe_eval.errors import CheckpointError, SpecError
from lpe_eval.interface.measuring import ppl
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.foreign.transformers_placing import refuse_indivisible
from tests.support.transformers_models import SYMBOLS, config_of, llama, save, since_version_5

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
LENGTHS, TOKENS = [32, 64], 500
SPREAD = 2e-5
"""Nats by which a mean loss of these models moves where sums over channels are added up in two halves."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    for name in ("llama plain", "gpt2"):
        save(config_of(name), folder / name.partition(" ")[0])
    words = " ".join(f"w{1 + place * place % (SYMBOLS - 1)}" for place in range(40_000))
    (folder / "text.txt").write_text(words, encoding="utf-8")
    return folder


def torchrun(place: Path, model: str, out: str, tokens: int = TOKENS) -> "subprocess.Popen[str]":
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "lpe_eval",
    ]
    command = ["ppl", "-m", f"hf:{model}", "--data", "text.txt", "--lengths", ",".join(map(str, LENGTHS)),
               "--max-tokens", str(tokens), "--out", out, "--tensor-parallel"]  # fmt: skip
    return subprocess.Popen(
        [*launcher, *command], cwd=place, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.slow
@since_version_5
def test_two_ranks_with_one_model_give_the_values_of_one_process(place: Path):
    launched = torchrun(place, "llama", "out")
    stdout, stderr = launched.communicate(timeout=540)
    assert launched.returncode == 0, stderr
    assert stdout.count("bold is the lowest") == 1, "the first rank alone shows the table"
    rows = pd.read_csv(place / "out" / "rows.csv")
    alone = ppl(f"hf:{place / 'llama'}", LENGTHS, data=place / "text.txt", max_tokens=TOKENS, out=place / "alone")
    wanted = pd.read_csv(alone.folder / "rows.csv")
    assert list(rows.status) == ["ok"] * len(wanted) and list(rows.metric) == list(wanted.metric)
    assert not (rows.run == wanted.run).any(), "values may differ in their last bits, so it is another run"
    losses, expected = (each[each.metric == "nll_nats"].value.to_numpy() for each in (rows, wanted))
    assert abs(losses - expected).max() < SPREAD
    opened = json.loads((place / "out" / "provenance.json").read_text())["models"]["llama"]["opened"]
    assert opened["tensor_parallel"] == {"ranks": 2}


@pytest.mark.slow
@since_version_5
def test_a_model_that_nobody_says_how_to_divide_ends_all_ranks_with_a_sentence(place: Path):
    launched = torchrun(place, "gpt2", "undivided")
    _, stderr = launched.communicate(timeout=300)
    assert launched.returncode != 0
    assert " ".join(stderr.split()).count("no plan that divides models of the type gpt2 among ranks") == 1


@pytest.mark.slow
@since_version_5
@pytest.mark.skipif(sys.platform != "linux", reason="children of a process are read from /proc")
def test_a_rank_that_is_killed_ends_the_launch_and_costs_no_cell(place: Path):
    launched = torchrun(place, "llama", "killed", tokens=200_000)
    began = place / "killed" / "provenance.json"
    while not began.exists() and launched.poll() is None:
        time.sleep(0.05)
    time.sleep(3)
    children = Path(f"/proc/{launched.pid}/task/{launched.pid}/children").read_text(encoding="ascii").split()
    ranks = [int(each) for each in children if b"tensor-parallel" in Path(f"/proc/{each}/cmdline").read_bytes()]
    assert len(ranks) == 2 and launched.poll() is None
    os.kill(ranks[1], signal.SIGKILL)
    launched.communicate(timeout=120)
    assert launched.returncode != 0, "a launch of which a rank was killed has not succeeded"
    assert not list((place / "killed").rglob("*failed*")), "what is left says nothing of the model"
    table = place / "killed" / "rows.csv"
    assert not table.exists() or "failed" not in table.read_text(encoding="utf-8")


def test_without_torchrun_one_sentence_says_how_to_start(tmp_path: Path):
    folder = save(llama(), tmp_path / "model", tokenizer=False)
    with pytest.raises(SpecError, match="torchrun --nproc-per-node 2 -m lpe_eval ppl"):
        locate(str(folder)).peek(LoadOptions(tensor_parallel=True))
    with pytest.raises(SpecError, match="--tensor-parallel has no effect on"):
        locate("alibi").peek(LoadOptions(tensor_parallel=True))


@since_version_5
def test_what_ranks_cannot_share_is_told_before_anything_is_read():
    refuse_indivisible(llama(), 2, "it")
    refuse_indivisible(config_of("gpt2"), 1, "it")
    with pytest.raises(CheckpointError, match="no plan that divides models of the type gpt2"):
        refuse_indivisible(config_of("gpt2"), 2, "it")
    with pytest.raises(CheckpointError, match="it has 4 attention heads, which 3 ranks cannot share"):
        refuse_indivisible(llama(), 3, "it")
    with pytest.raises(CheckpointError, match="it has 2 key value heads, which 4 ranks cannot share"):
        refuse_indivisible(llama(num_key_value_heads=2), 4, "it")
