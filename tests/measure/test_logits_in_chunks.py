"""A vocabulary of 262,144 symbols at a long length: hidden states and some rows of logits, never all of them."""

import pytest
import torch
import transformers

from lpe_eval.data.batch import Batch
from lpe_eval.measure.heap import keep_freed_memory
from lpe_eval.measure.memory import begin_peak, peak_memory_mib
from lpe_eval.measure.score import target_losses
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.checkpoints.huggingface import HuggingFace
from tests.support.transformers_models import save, since_version_5

SYMBOLS, LENGTH, ROOM = 1 << 18, 2048, 256
"""Symbols, tokens, and MiB that a pass may take; all logits of a text would take 2048 MiB."""
SIZES = {"vocab_size": SYMBOLS, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
         "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": LENGTH,
         "tie_word_embeddings": True, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}  # fmt: skip
CONFIGS = {"llama": transformers.LlamaConfig, "gemma2": transformers.Gemma2Config}


def text(length: int) -> Batch:
    tokens = torch.randint(SYMBOLS, (1, length + 1), generator=torch.Generator().manual_seed(2))
    return Batch(tokens[:, :-1], tokens[:, 1:], torch.ones(1, length, dtype=torch.bool))


@since_version_5
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_large_vocabulary_at_a_long_length_needs_a_chunk_of_logits_and_no_more(kind, tmp_path):
    folder = save(CONFIGS[kind](**SIZES), tmp_path / "model", tokenizer=False)
    model = HuggingFace.load(folder, LoadOptions())
    assert "full-logits" not in model.attention
    keep_freed_memory()
    device, draw = torch.device("cpu"), torch.Generator()
    short = text(16)
    with torch.inference_mode():
        whole = transformers.AutoModelForCausalLM.from_pretrained(folder)(short.tokens).logits[0].double()
    wanted = torch.nn.functional.cross_entropy(whole, short.targets[0], reduction="none")
    torch.testing.assert_close(target_losses(model, short, draw)[0].double(), wanted, rtol=1e-5, atol=1e-5)
    begin_peak(device)
    before = peak_memory_mib(device)
    losses = target_losses(model, text(LENGTH), draw)
    assert losses.isfinite().all() and losses.shape == (1, LENGTH)
    assert peak_memory_mib(device) - before < ROOM
