"""What a checkpoint asks for and `transformers` would not do, each in a sentence, before a weight is read.

Choices:
    * Encoder-decoders and masked models have no perplexity of a text by itself, so they are named and refused.
    * MPT's class always adds ALiBi, scales no logits and knows one kind of attention. Configs that ask for something
      else would give numbers of another model.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lpe_eval.errors import CheckpointError

_CAUSAL_ENDS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "LMHead")
_MPT_ATTENTION: Mapping[str, Any] = {
    "alibi": True,
    "rope": False,
    "qk_ln": False,
    "qk_gn": False,
    "prefix_lm": False,
    "attn_type": "multihead_attention",
    "sliding_window_size": -1,
    "attn_logit_softcapping": None,
}
"""What the class does, whatever a config says."""


def refuse_other_kinds(config: Mapping[str, Any], masked: bool, where: str) -> None:
    """Raises CheckpointError for a model that does not continue a text.

    Args:
        config: as a mapping.
        masked: whether the library has a masked model of this type.
        where: what messages call it.
    """
    named = config.get("architectures")
    classes = [str(each) for each in named] if isinstance(named, list | tuple) else []
    called = f" ({', '.join(classes)})" if classes else f" of the type {config.get('model_type')}"
    if config.get("is_encoder_decoder") and not any(each.endswith("ForCausalLM") for each in classes):
        raise CheckpointError(
            f"{where} is an encoder-decoder{called}: its decoder continues what an encoder has read, so a text by "
            "itself has no perplexity; measure a decoder-only model"
        )
    if masked and not config.get("is_decoder") and not any(each.endswith(_CAUSAL_ENDS) for each in classes):
        raise CheckpointError(
            f"{where} is a masked language model{called}: it fills gaps and sees the text on both sides of them, so "
            "it has no perplexity; measure a causal model"
        )


def refuse_undone(config: Mapping[str, Any], where: str) -> None:
    """Raises CheckpointError where a class of `transformers` ignores what its config asks for."""
    if config.get("model_type") == "mpt":
        undone = ", ".join(_undone_by_mpt(config))
        if undone:
            raise CheckpointError(
                f"{where} asks for {undone}, and the class MptForCausalLM of transformers always does as the first MPT "
                "did; use the code of its authors (--trust-remote-code), or py: and a function of yours"
            )
    if config.get("model_type") == "gptj" and config.get("rotary") is False:
        raise CheckpointError(f"{where} asks for no rotary positions, and transformers gives every GPT-J some")


def _undone_by_mpt(config: Mapping[str, Any]) -> Iterator[str]:
    inner = config.get("attn_config")
    for name, done in _MPT_ATTENTION.items():
        asked = inner.get(name, done) if isinstance(inner, Mapping) else done
        if asked != done and asked is not None:
            yield f"attn_config.{name} {asked}"
    if config.get("logit_scale") is not None:
        yield f"logit_scale {config['logit_scale']}"
    if "rms" in str(config.get("norm_type", "")).lower():
        yield f"norm_type {config['norm_type']}"
