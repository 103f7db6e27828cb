"""Models whose Python code comes with the checkpoint: each row is a case, what happened before, and what must happen.

The expected number is that of the same code, imported and run without `transformers` having loaded it.
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lpe_eval.errors import CheckpointError
from lpe_eval.measure.probe import refuse_leak
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.checkpoints.huggingface import HuggingFace
from tests.support.direct_loop import our_loss, their_loss

TRUSTED = LoadOptions(tokenizer="bytes", trust_remote_code=True)

CODE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class Config(PretrainedConfig):
    model_type = "own_alibi"

    def __init__(self, width=32, **more):
        self.width = width
        super().__init__(**more)


class Model(PreTrainedModel):
    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(64, config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, 64)
        self.longest = 0
        KEPT
        self.post_init()

    EMBEDDING

    def forward(self, input_ids, ARGUMENTS):
        b, t = input_ids.shape
        q, k, v = (x.view(b, t, 4, -1).transpose(1, 2) for x in self.qkv(self.embed(input_ids)).chunk(3, -1))
        i = torch.arange(t)
        STATE
        bias = -SLOPES[:, None, None] * (i[:, None] - i).clamp(min=0)
        bias = bias.masked_fill(i > i[:, None], float("-inf"))
        a = (q @ k.transpose(-1, -2) / 8**0.5 + bias).softmax(-1) @ v
        logits = self.out(a.transpose(1, 2).reshape(b, t, -1))
        RETURNED
"""
USUAL = {
    "KEPT": 'self.register_buffer("slopes", 2.0 ** -torch.arange(1.0, 5.0), persistent=False)',
    "EMBEDDING": "def get_input_embeddings(self): return self.embed",
    "ARGUMENTS": "use_cache=None, **more",
    "SLOPES": "self.slopes",
    "STATE": "pass",
    "RETURNED": "return CausalLMOutput(logits=logits)",
}
CASES: dict[str, tuple[str, dict[str, str]]] = {
    "buffer": ("reports 3: slopes of -5.9e26, a logit moved by 94, status ok", {}),
    "attribute": (
        "reports 3: a tensor on the meta device, and a traceback",
        {"KEPT": "self.slopes = 2.0 ** -torch.arange(1.0, 5.0)"},
    ),
    "list of tensors": (
        "reports 3: the same in a list",
        {"KEPT": "self.held = [2.0 ** -torch.arange(1.0, 5.0)]", "SLOPES": "self.held[0]"},
    ),
    "no use_cache": (
        "architectures 10: got an unexpected keyword argument 'use_cache'",
        {"ARGUMENTS": "attention_mask=None"},
    ),
    "tuple": ("architectures 10: 'tuple' object has no attribute 'logits'", {"RETURNED": "return (logits, None)"}),
    "loss before logits": ("architectures 10: the same", {"RETURNED": "return (logits.mean(), logits)"}),
    "mapping": ("architectures 10: the same", {"RETURNED": "return {'loss': logits.mean(), 'logits': logits}"}),
    "tensor": ("architectures 10: the same", {"RETURNED": "return logits", "ARGUMENTS": "labels=None"}),
    "demands a mask": ("architectures 10: missing 1 required positional argument", {"ARGUMENTS": "attention_mask"}),
    "no embedding told": ("architectures 10: a traceback", {"EMBEDDING": ""}),
    "remembers the longest text": (
        "architectures 6: a number depended on the texts before it",
        {"STATE": "self.longest = max(self.longest, t); i = i * (1 + self.longest)"},
    ),
    "writes into its buffer": (
        "architectures 6: the same",
        {"STATE": "self.slopes.mul_(0.9)"},
    ),
}


@pytest.fixture(autouse=True)
def cache_of_code(tmp_path, monkeypatch):
    """Copies of code that the library makes go to a folder of the test."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])


def checkpoint(folder: Path, changes: dict[str, str]) -> Any:
    """Saves a model of this code, and returns it as its own code makes it."""
    text = CODE
    for key, value in (USUAL | changes).items():
        text = text.replace(key, value)
    folder.mkdir(parents=True)
    (folder / "own.py").write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"own_{folder.parent.name}", folder / "own.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.Model(module.Config())
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=draw)
    model.save_pretrained(folder)
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    raw["auto_map"] = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"} | raw.get("auto_map", {})
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    return model.eval()


@pytest.mark.parametrize("case", CASES)
def test_code_of_a_checkpoint_is_run_as_it_runs_by_itself(case, tmp_path):
    _before, changes = CASES[case]
    theirs = checkpoint(tmp_path / "model", changes)
    # Memory that was used before is not zero, and what is not initialised shows it.
    junk = [torch.full((4,), 7.0) for _ in range(2000)]
    del junk
    model = HuggingFace.load(tmp_path / "model", TRUSTED)
    refuse_leak(model)
    call = {
        "demands a mask": lambda tokens: theirs(tokens, torch.ones_like(tokens)),
        "loss before logits": lambda tokens: theirs(tokens)[1],
        "mapping": lambda tokens: theirs(tokens)["logits"],
    }.get(case, theirs)
    if "STATE" in changes:
        expected = {}
        for length in (48, 24):
            again = checkpoint(tmp_path / str(length) / "model", changes)

            def fresh(tokens, again=again):
                again.longest, again.slopes = 0, 2.0 ** -torch.arange(1.0, 5.0)
                return again(tokens)

            expected[length] = their_loss(fresh, length)
    else:
        expected = {length: their_loss(call, length) for length in (48, 24)}
    for length in (48, 24, 48):
        assert our_loss(model, length) == pytest.approx(expected[length], rel=1e-6)


def test_a_buffer_that_cannot_be_made_anew_is_named(tmp_path):
    """reports 3: whatever was in memory was taken for it."""
    kept = 'self.register_buffer("slopes", 2.0 ** -self.out.weight[:4, 0], persistent=False)'
    checkpoint(tmp_path / "model", {"KEPT": kept})
    with pytest.raises(CheckpointError, match="no file holds slopes, and the checkpoint's code does not make it"):
        HuggingFace.load(tmp_path / "model", TRUSTED)


def test_code_that_returns_no_logits_is_told(tmp_path):
    """architectures 10."""
    checkpoint(tmp_path / "model", {"RETURNED": "return logits.mean()"})
    with pytest.raises(CheckpointError, match=r"returns no logits \[b, t, v\]"):
        HuggingFace.load(tmp_path / "model", TRUSTED)


def test_whatever_the_code_raises_is_one_sentence(tmp_path):
    """architectures 4 and 10."""
    checkpoint(tmp_path / "model", {"STATE": "raise ZeroDivisionError('half a\\nsentence')"})
    with pytest.raises(CheckpointError, match=r"cannot run on 8 tokens: half a$"):
        HuggingFace.load(tmp_path / "model", TRUSTED)
