"""What asks for more than there is: models, windows, numbers without end, and configs of other programs."""

import csv
import json
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from lpe_eval.errors import CheckpointError, LpeEvalError
from lpe_eval.measure import passing
from lpe_eval.model import needed_memory
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.checkpoints.huggingface import HuggingFace
from lpe_eval.model.foreign.transformers_config import refuse_larger
from lpe_eval.model.needed_memory import free_memory, shortfall
from lpe_eval.spec.task_files import tasks_folder
from tests.support.native_checkpoints import checkpoint
from tests.support.small_ppl import TEXT, ppl, told


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the checkpoint `tiny` and the text `text.txt`, as the current directory."""
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("tiny"))
    Path("text.txt").write_text(TEXT)
    return tmp_path


def test_memory_is_a_sum(tmp_path: Path):
    free = 4 * 2**30
    assert shortfall(3_300_000_000, 4, 0, free) == "needs 12.3 GiB for 3.3e+09 parameters, and 4.0 GiB are free"
    assert shortfall(0, 0, free + 2**20, free) == "needs 4.0 GiB at least, and 4.0 GiB are free"
    assert shortfall(2**30, 4, 0, free) == ""
    assert shortfall(10**30, 16, 0, None) == ""
    for name, text in {
        "proc/meminfo": "MemTotal: 9999 kB\nMemAvailable: 3000 kB\nSwapFree: 100 kB\n",
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/memory.max": "max\n",
        "sys/fs/cgroup/a/memory.max": "2048000\n",
        "sys/fs/cgroup/a/memory.stat": "anon 48000\nfile 2000000\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_memory(tmp_path) == 2_000_000
    (tmp_path / "sys/fs/cgroup/a/memory.max").write_text("max\n")
    assert free_memory(tmp_path) == 3100 * 1024
    assert free_memory(tmp_path / "nowhere") is None


def test_a_model_that_cannot_fit_says_so_before_anything_is_allocated(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(needed_memory, "free_memory", lambda: 10_000)
    small = ("--encoding", "alibi", "--width", "16", "--layers", "1", "--heads", "2")
    assert "needs" in told("train", *small, "--corpus", "text.txt", code=2)
    assert "needs" in told("speed", *small, "--lengths", "32", "-q", code=2)
    assert "and 0 MiB are free" in told("che", "--train", "--encoding", "rope", "--protocol", "smoke", "-q", code=2)
    assert "and 0 MiB are free" in told(*ppl(), code=4)


def test_a_window_that_cannot_fit_costs_its_length_alone(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(passing, "free_memory", lambda: 10_000)
    said = told(*ppl("--attention", "dense", lengths="16,128"), code=4)
    assert "a window of 128 tokens needs" in said.replace("\n", " ")
    rows = list(csv.DictReader(Path("out/rows.csv").read_text().splitlines()))
    assert {row["length"] for row in rows if row["status"] == "ok"} == {"16"}


@pytest.mark.parametrize("field", ["layers: 2", "width: 16", "mlp_width: 32", "train_length: 32", "vocab_size: 258"])
@pytest.mark.parametrize("size", [10**9, 10**30])
def test_a_native_config_cannot_ask_for_more_than_there_is(field: str, size: int, here: Path):
    config = Path("tiny/config.yaml")
    config.write_text(config.read_text().replace(field, f"{field.partition(':')[0]}: {size}"))
    began = time.monotonic()
    told("inspect", "tiny", code=0 if field.startswith("train") and size < 2**62 else 2)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "argv",
    [
        ppl("--seed", "9" * 30),
        ppl(lengths="9" * 30),
        ppl("--batch-size", "9" * 30),
        ppl("--last-k", "9" * 30, "--protocol", "last"),
        ppl("--device", f"cuda:{'9' * 30}"),
        ["train", "--encoding", "alibi", "--seed", "9" * 30],
        ["train", "--encoding", "alibi", "--steps", "9" * 30],
        ["train", "--encoding", "alibi", "--train-length", "9" * 30],
        ["train", "--encoding", "alibi", "--layers", "9" * 9, "--width", "1", "--heads", "1"],
        ["train", "--encoding", "alibi", "--width", "9" * 12],
        ["train", "--encoding", "learned", "--option", f"length={'9' * 30}"],
        ["speed", "--encoding", "alibi", "--layers", "9" * 30],
        ["speed", "--encoding", "alibi", "--rounds", "9" * 30],
        ["che", "--seed", "9" * 30],
        ["che", "--samples", "9" * 30],
        ["che", "--lengths", "9" * 30],
    ],
    ids=lambda argv: " ".join(each[:12] for each in argv[:3] + argv[-2:]),
)
def test_numbers_without_end_are_one_sentence(argv: list[str], here: Path):
    said = told(*argv, code=2)
    assert len(said.strip().splitlines()) == 1 or "Usage" in said


ENDLESS = ("layers", "width", "mlp_width", "test_seed", "data_seed", "batch", "steps")


@pytest.mark.parametrize(
    ("field", "size"), [*((field, 10**30) for field in ENDLESS), *((field, 10**12) for field in ENDLESS[:3])]
)
def test_a_protocol_cannot_ask_for_more_than_there_is(field: str, size: int, here: Path):
    raw = yaml.safe_load((tasks_folder() / "protocols" / "smoke.yaml").read_text())
    Path("mine.yaml").write_text(yaml.safe_dump({**raw, "name": "mine", "heads": 1, field: size}))
    told("che", "--train", "--encoding", "rope", "--protocol", "mine.yaml", "-q", "--out", "new", code=2)


LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 256, "max_position_embeddings": 64,
    "dtype": "float32", "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip
WRONG = [None, "floa\x00", "", -1, 0, 10**9, 10**30, 1.5, [], {}, [1], {"a": None}, True]


def test_no_value_in_a_foreign_config_ends_in_a_traceback(tmp_path: Path):
    folder = tmp_path / "llama"
    folder.mkdir()
    save_file({"model.norm.weight": torch.ones(16), "left.over": torch.ones(2000)}, folder / "model.safetensors")
    opened = 0
    for key in LLAMA:
        for value in WRONG:
            (folder / "config.json").write_text(json.dumps({**LLAMA, key: value}))
            try:
                HuggingFace.load(folder, LoadOptions(tokenizer="bytes"))
                opened += 1
            except LpeEvalError as error:
                assert str(error).strip()
    assert opened == 0


def test_a_foreign_config_cannot_ask_for_more_than_its_files_hold():
    refuse_larger(LLAMA, 8_192, "here")
    for key in ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size"):
        with pytest.raises(CheckpointError, match="weight files of 8192 bytes do not hold"):
            refuse_larger({**LLAMA, key: 10**9}, 8_192, "here")
    with pytest.raises(CheckpointError, match="do not hold"):
        refuse_larger({**LLAMA, "vision_config": {"model_type": "x", "num_hidden_layers": 10**9}}, 8_192, "here")
