"""Small random models of `transformers`, by the name of their kind, saved with or without a tokenizer."""

from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

SYMBOLS, TRAINED = 61, 64

since_version_5 = pytest.mark.skipif(
    int(transformers.__version__.partition(".")[0]) < 5,
    reason="transformers 4 lacks these classes, or reads their configs in another way",
)
STREAM = torch.randint(SYMBOLS, (1, 257), generator=torch.Generator().manual_seed(5))

ROPES = {
    "plain": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": TRAINED},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": TRAINED,
    },
    "longrope": {
        "rope_type": "longrope",
        "factor": 4.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [1.5, 2.0, 3.0, 4.0],
        "original_max_position_embeddings": TRAINED,
    },
}


def llama(rope="plain", **changes):
    length = 4 * TRAINED if "original_max_position_embeddings" in ROPES[rope] else TRAINED
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    fields = {**sizes, "vocab_size": SYMBOLS, "max_position_embeddings": length, **rope_fields(ROPES[rope])}
    return transformers.LlamaConfig(**fields | changes)


def rope_fields(rule, theta=10000.0):
    """As the config of the installed version spells them."""
    if int(transformers.__version__.partition(".")[0]) >= 5:
        return {"rope_parameters": {"rope_theta": theta, **rule}}
    return {"rope_theta": theta, "rope_scaling": None if rule["rope_type"] == "default" else rule}


def config_of(name):
    kind, _, rope = name.partition(" ")
    match kind:
        case "gpt2":
            return transformers.GPT2Config(vocab_size=SYMBOLS, n_positions=TRAINED, n_embd=32, n_layer=2, n_head=4)
        case "pythia":
            return transformers.GPTNeoXConfig(
                vocab_size=SYMBOLS, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                max_position_embeddings=TRAINED, rotary_pct=0.25, use_parallel_residual=True,
            )  # fmt: skip
        case "llama":
            return llama(rope)
        case "opt":
            return transformers.OPTConfig(
                vocab_size=SYMBOLS, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48,
                max_position_embeddings=TRAINED, word_embed_proj_dim=16,
            )  # fmt: skip
        case "bloom":
            return transformers.BloomConfig(vocab_size=SYMBOLS, hidden_size=32, n_layer=2, n_head=4)
        case "mpt":
            return transformers.MptConfig(
                vocab_size=SYMBOLS, d_model=32, n_heads=4, n_layers=2, max_seq_len=TRAINED, expansion_ratio=2
            )
        case "falcon":
            return transformers.FalconConfig(
                vocab_size=SYMBOLS, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True,
                new_decoder_architecture=False, multi_query=False, max_position_embeddings=TRAINED,
            )  # fmt: skip
    raise AssertionError(name)


def save(config, folder: Path, tokenizer: bool = True) -> Path:
    """Random weights ten times the usual size, so that positions matter for the loss."""
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2, generator=draw)
    model.save_pretrained(folder)
    if tokenizer:
        words = {"<bos>": 0} | {f"w{number}": number for number in range(1, SYMBOLS)}
        rules = Tokenizer(WordLevel(words, unk_token="w1"))
        rules.pre_tokenizer = Whitespace()
        PreTrainedTokenizerFast(tokenizer_object=rules, bos_token="<bos>").save_pretrained(folder)
    return folder
