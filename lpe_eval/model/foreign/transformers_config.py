"""What a Hugging Face config says of a model's positions: the kind of encoding and the training length.

Pure functions of the config as a mapping, so that they serve checkpoints whose weights nobody has read. Where the
config is not certain, a pass through the model is (`observed_label`).

Choices:
    * A multimodal model is described by the part of its config that describes its text decoder.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lpe_eval.errors import CheckpointError
from lpe_eval.model.foreign.module_trace import Trace

_LEARNED = {
    "biogpt", "gpt2", "gpt_bigcode", "gpt_neo", "imagegpt", "openai-gpt", "opt",
    "bert-generation", "bert", "roberta", "bart", "mbart", "blenderbot", "xlm",
}  # fmt: skip
"""Model types with a table of positions that the config does not mention otherwise."""

_SINUSOIDAL = {"ctrl", "xglm", "marian", "pegasus"}

_NONE = {"mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm", "jamba", "nemotron_h"}
"""Recurrent ones, and those that leave positions to their recurrent layers."""

_LENGTHS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length", "n_ctx"),
    *("context_length", "max_seq_length", "max_context_length"),
)

_TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config", "decoder", "generator")
"""Where configs of multimodal models keep the one of their text decoder."""

_SIZES = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "width": ("hidden_size", "n_embd", "d_model"),
    "embedding": ("word_embed_proj_dim", "embedding_size"),
    "mlp": ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"),
    "vocabulary": ("vocab_size",),
}
"""What configs call the sizes of which weights are made."""


def text_part(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys that lead from a config to the one of its text decoder; none where it is that itself."""
    for key in _TEXT_PARTS:
        inner = config.get(key)
        if isinstance(inner, Mapping) and ("model_type" in inner or "hidden_size" in inner or text_part(inner)):
            return (key, *text_part(inner))
    return ()


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the text decoder, which may be all of it."""
    for key in text_part(config):
        config = config[key]
    return config


def with_aliases(config: Any) -> dict[str, Any]:
    """The text decoder's part of a config object as a mapping, with the names that the library gives its fields."""
    keys = text_part(config.to_dict())
    inner = config
    for key in keys:
        inner = inner[key] if isinstance(inner, Mapping) else getattr(inner, key)
    held = dict(inner) if isinstance(inner, Mapping) else inner.to_dict()
    aliases = getattr(inner, "attribute_map", {})
    return {**{alias: held[name] for alias, name in aliases.items() if name in held}, **held}


def encoding_label(config: Mapping[str, Any]) -> str:
    """The positional encoding as a table shows it: rope, rope(yarn), alibi, learned, none, unknown."""
    kind = str(config.get("model_type", ""))
    if _alibi(config):
        return "alibi(scaled)" if kind == "falcon" else "alibi"
    rules = rope_rules(config)
    if rules is not None:
        names = list(dict.fromkeys(rule for rule in rules if rule != "default"))
        label = f"rope({'+'.join(names)})" if names else "rope"
        without = config.get("no_rope_layers")
        return f"{label}+none" if isinstance(without, list | tuple) and 0 in without else label
    if kind in _LEARNED:
        return "learned"
    if kind in _SINUSOIDAL:
        return "sinusoidal"
    return "none" if kind in _NONE else "unknown"


def observed_label(label: str, seen: Trace, known_code: bool) -> str:
    """The label of a config, corrected by what a pass did.

    Args:
        label: of `encoding_label`.
        seen: of a pass over the text decoder.
        known_code: whether the code is the library's own, of which a rotation that is not seen does not happen.
    """
    table = ("sinusoidal" if all(each.sinusoidal for each in seen.tables) else "learned") if seen.tables else ""
    if seen.rotations:
        label = "rope" if label in ("unknown", "none") else label
        without = seen.attending - seen.rotated if seen.rotated else ()
        return f"{label}+none" if label.startswith("rope") and without and "+none" not in label else label
    if label.startswith("rope") and known_code:
        return table or "none"
    if label in ("unknown", "learned") and table:
        return table
    return label


def train_length(config: Mapping[str, Any]) -> int | None:
    """Tokens per training window before any scaling; None where the config does not say."""
    held = config.get("rope_parameters") or config.get("rope_scaling")
    merged = held if isinstance(held, Mapping) else {}
    nested = [value for value in merged.values() if isinstance(value, Mapping)]
    given = next((found for name in _LENGTHS if isinstance(found := config.get(name), int) and found > 0), None)
    for holder in (merged, *nested, config):
        # Phi-3 carries the field without any scaling too, where it may be longer than the model's length.
        found = holder.get("original_max_position_embeddings")
        if isinstance(found, int) and 0 < found < (given or found + 1):
            return found
    return given


def depends_on_length(config: Mapping[str, Any]) -> bool:
    """Whether the encoding of a token changes with the length of the text after it."""
    return any("dynamic" in rule or rule == "longrope" for rule in rope_rules(config) or ())


def _alibi(config: Mapping[str, Any]) -> bool:
    inner = config.get("attn_config")
    return (
        config.get("model_type") == "bloom"
        or config.get("alibi") is True
        or (isinstance(inner, Mapping) and inner.get("alibi") is True)
        or config.get("position_embedding_type") == "alibi"
    )


def rope_rules(config: Mapping[str, Any]) -> list[str] | None:
    """The rules of RoPE in a config, one for each kind of layer; None where it does not mention RoPE."""
    merged = config.get("rope_parameters") or config.get("rope_scaling")
    if isinstance(merged, Mapping):
        each = [value for value in merged.values() if isinstance(value, Mapping)] or [merged]
        return [str(one.get("rope_type", one.get("type", "default"))) for one in each]
    named = any(config.get(name) for name in ("rope_theta", "rotary_emb_base", "rotary_dim", "rotary_pct"))
    return ["default"] if named or config.get("position_embedding_type") == "rope" else None


def refuse_larger(config: Mapping[str, Any], n_bytes: int, where: str) -> None:
    """Raises CheckpointError where a config asks for more numbers than its weight files can hold, at a bit for each.

    Before a module is built: so many layers may take all of the memory without a single weight. Of towers beside the
    text decoder, whose configs are inside this one, the layers count.
    """
    sizes = _sizes_in(text_config(config))
    table = sizes["vocabulary"] * (sizes["embedding"] or sizes["width"])
    asked = max(table, sizes["width"] * sizes["mlp"], *_of_layers(config))
    if asked > 8 * n_bytes:
        size = f"{min(asked, 10**30):.1e} numbers or more that its config asks for"
        raise CheckpointError(f"{where}: its weight files of {n_bytes} bytes do not hold the {size}")


def _sizes_in(config: Mapping[Any, Any]) -> dict[str, int]:
    return {
        what: max((config[name] for name in names if type(config.get(name)) is int), default=0)
        for what, names in _SIZES.items()
    }


def _of_layers(config: Mapping[Any, Any]) -> Iterator[int]:
    """Numbers of the layers of a config and of those inside it: each has a norm of its width at the very least."""
    sizes = _sizes_in(config)
    yield sizes["layers"] * max(1, sizes["width"])
    for inner in config.values():
        if isinstance(inner, Mapping):
            yield from _of_layers(inner)
