"""Every kind of causal language model of `transformers`, tiny and random, against a direct loop over its own class.

A tenth of the kinds is tried each time, all of them with the slow tests. Kinds with towers for images and sound are in
`tests/brought/test_huggingface_models.py`.
"""

from functools import partial
from typing import Any

import pytest
import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lpe_eval.errors import CausalLeakError, LpeEvalError
from lpe_eval.measure.probe import refuse_leak
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.checkpoints.huggingface import HuggingFace
from tests.support.direct_loop import TEXT, our_loss, their_loss
from tests.support.zoo import POSITIONS, tiny_config

LENGTHS = (32, 100, 240)
"""Within the positions, more than one window of 64, and beyond."""

_LARGEST = 5_000_000
"""More numbers than that mean a tower that `tiny_config` does not know."""

_AS_THEY_ARE = ("A_log", "dt_bias", ".D", "time_decay", "time_first", "conv1d", "a_param", "recurrent_param")
"""Parameters whose size matters for whether anything is finite."""

KINDS = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


@pytest.mark.parametrize(
    "kind", [each if at % 10 == 0 else pytest.param(each, marks=pytest.mark.slow) for at, each in enumerate(KINDS)]
)
def test_every_kind_is_what_its_own_class_says(kind, tmp_path):
    theirs = tiny(kind)
    theirs.save_pretrained(tmp_path)
    try:
        model = HuggingFace.load(tmp_path, LoadOptions(tokenizer="bytes"))
        refuse_leak(model)
    except CausalLeakError:
        assert sees_the_future(theirs)
        return
    # MPT's ALiBi has no end, and `max_seq_len` follows the text here.
    longer = {"max_seq_len": max(LENGTHS)} if kind == "mpt" else {}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, **longer).eval()
    for length in LENGTHS:
        ours = outcome(our_loss, model, length)
        expected = outcome(partial(their_loss, use_cache=False), theirs, length)
        assert ours == (None if expected is None else pytest.approx(expected, rel=1e-6)), length
        assert length > POSITIONS or expected is not None


def tiny(kind: str) -> Any:
    """A random model of a kind; kinds that cannot be made tiny here are passed over, and why."""
    try:
        config = tiny_config(kind)
        with torch.device("meta"):
            size = sum(each.numel() for each in transformers.AutoModelForCausalLM.from_config(config).parameters())
    except Exception as error:
        pytest.skip(f"its class refuses these sizes: {type(error).__name__}: {error}")
    if size > _LARGEST:
        pytest.skip(f"has towers beside its text decoder: {size:,} numbers")
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and not any(part in name for part in _AS_THEY_ARE):
                parameter.normal_(std=0.1, generator=draw)
    return model


def outcome(loss: Any, model: Any, length: int) -> float | None:
    """The loss, or None where the model cannot run on so many tokens."""
    try:
        return loss(model, length)
    except (LpeEvalError, IndexError, ValueError, RuntimeError):
        return None


@torch.no_grad()
def sees_the_future(theirs: Any) -> bool:
    """Whether another last token moves the scores of the first ones in the library's own class."""
    tokens = TEXT[:, :48]
    changed = tokens.clone()
    changed[:, 24:] = (changed[:, 24:] + 7) % 61
    first, second = (theirs(each).logits[:, :24] for each in (tokens, changed))
    return not torch.allclose(first, second, atol=1e-3 * float(first.std()))
