"""Weights of `transformers` read into a model, strictly.

Choices:
    * `transformers` fills missing weights with random numbers and passes over those it does not know; here both are
      errors, except buffers that older versions stored, and the weights of other towers of a multimodal model, where
      the text decoder lacks nothing.
    * The class is the one for causal language models if there is one, else that for several modalities, whose text
      path then runs.
    * Falcon with ALiBi runs through `sdpa` only, because the eager code of transformers 5.23 adds the bias twice,
      before and with the mask.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from lpe_eval.errors import CheckpointError, SpecError
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.foreign.transformers_adapter import apply_adapter
from lpe_eval.model.foreign.transformers_buffers import renew_buffers
from lpe_eval.model.foreign.transformers_calls import known_code
from lpe_eval.model.foreign.transformers_config import rope_rules, text_config
from lpe_eval.model.foreign.transformers_folder import weight_names
from lpe_eval.model.foreign.transformers_library import failures_told, import_transformers, major, quiet
from lpe_eval.model.foreign.transformers_placing import (
    accelerate_quiet,
    folder_let_go,
    placing,
    refuse_indivisible,
    refuse_other_parts,
    refuse_without_accelerate,
    settled,
)
from lpe_eval.model.foreign.transformers_source import Source
from lpe_eval.model.foreign.transformers_undone import refuse_other_kinds, refuse_undone
from lpe_eval.model.tensor_parallel import size

_STORED_BUFFERS = (".inv_freq", ".attn.bias", ".masked_bias", ".attention.bias", ".embed_positions", "position_ids")
"""Ends of the names of buffers that older versions wrote into checkpoints and every version computes."""
_AUTO = ("AutoModelForCausalLM", "AutoModelForMultimodalLM", "AutoModelForImageTextToText", "AutoModelForVision2Seq")
_HEADED = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
_NEAR_ROOT = 2
"""Parts of the name of a whole tower: `vision_tower`, `model.vision_tower`."""


def build(source: Source, options: LoadOptions) -> nn.Module:
    """The model on its device, or on those that a map names, in evaluation mode.

    Raises:
        CheckpointError: it cannot be opened exactly as it is.
        SpecError: the attention path asked for would give wrong numbers.
    """
    transformers = import_transformers()
    raw = source.config.to_dict()
    auto = _auto_class(transformers, source, raw, options.trust_remote_code)
    with failures_told(source.where, Path(source.place).is_dir()), quiet(transformers), accelerate_quiet():
        _refuse_unknown_quantisation(transformers, source)
        placed = placing(auto, source.config, options, source.where)
        arguments = {**_arguments(transformers, source, options), **placed}
        with folder_let_go(placed):
            model, info = _loaded(auto, source, arguments, _attention(source, options.attention))
    settled(model, placed)
    _refuse_loose_ends(info, model, source)
    if known_code(model):
        refuse_undone(raw, source.where)
    else:
        renew_buffers(model, options.dtype, source.where)
    builder = getattr(model.base_model, "build_mpt_alibi_tensor", None)
    bias_max = getattr(getattr(source.config, "attn_config", None), "alibi_bias_max", None)
    if raw.get("model_type") == "mpt" and builder is not None and bias_max is not None:
        model.base_model.build_mpt_alibi_tensor = partial(builder, alibi_bias_max=bias_max)
    if source.adapter is not None:
        with quiet(transformers):
            model = apply_adapter(model, source.adapter, source.where)
    # Quantised weights stay where the library has put them, and so do those that lie where a map says.
    stays = (
        options.device_map is not None
        or options.tensor_parallel
        or (getattr(model, "is_quantized", False) and _placed(model))
    )
    return (model if stays else model.to(options.device)).eval()


def refuse_unplaceable(source: Source, options: LoadOptions) -> None:
    """Refuses, before a weight is read, what cannot lie where the options say.

    Raises:
        MissingExtra: `accelerate` is not installed.
        SpecError: a map does not fit the model, or it is an adapter.
    """
    refuse_without_accelerate(options)
    if options.tensor_parallel:
        refuse_indivisible(source.config, size(), source.where)
    if options.device_map is None:
        return
    if source.adapter is not None:
        raise SpecError(
            f"{source.where} is an adapter, and --device-map places whole models; merge it into its model first"
        )
    if isinstance(options.device_map, Mapping):
        transformers = import_transformers()
        auto = _auto_class(transformers, source, source.config.to_dict(), options.trust_remote_code)
        refuse_other_parts(auto, source.config, options, source.where)


def _auto_class(transformers: Any, source: Source, raw: Mapping[str, Any], own_code: bool) -> Any:
    """The library's class that opens models of this kind."""
    mapped = raw.get("auto_map") if own_code else None
    for name in (*_AUTO, "AutoModel"):
        if isinstance(mapped, Mapping) and name in mapped and getattr(transformers, name, None) is not None:
            return getattr(transformers, name)
    known = [each for each in (getattr(transformers, name, None) for name in _AUTO) if each is not None]
    masked = type(source.config) in transformers.AutoModelForMaskedLM._model_mapping
    refuse_other_kinds(raw, masked, source.where)
    for auto in known:
        if type(source.config) in auto._model_mapping:
            return auto
    if isinstance(raw.get("auto_map"), Mapping):
        # The library then asks for permission to run code, in its own words.
        return known[0]
    for name in raw.get("architectures") or ():
        found = getattr(transformers, str(name), None) if str(name).endswith(_HEADED) else None
        if found is not None:
            return found
    classes = ", ".join(map(str, raw.get("architectures") or ["no class"]))
    raise CheckpointError(
        f"{source.where} is a model of the type {raw.get('model_type')} ({classes}), "
        f"and transformers {transformers.__version__} has no language model of that type; install a newer one, or "
        "measure another model"
    )


def _refuse_unknown_quantisation(transformers: Any, source: Source) -> None:
    """The library passes over a way of quantising that it does not know, and would take codes for weights."""
    held = getattr(source.config, "quantization_config", None)
    if held is None or source.gguf is not None:
        return
    told = dict(held) if isinstance(held, Mapping) else held.to_dict()
    if not transformers.quantizers.AutoHfQuantizer.supports_quant_method(told):
        raise CheckpointError(
            f"{source.where} is quantised by {told.get('quant_method')}, which transformers "
            f"{transformers.__version__} does not know; install a newer one, or measure weights that are not quantised"
        )


def _arguments(transformers: Any, source: Source, options: LoadOptions) -> dict[str, Any]:
    dtype_name = "dtype" if major(transformers) >= 5 else "torch_dtype"
    return {
        "config": source.config,
        "revision": source.commit or "main",
        "trust_remote_code": options.trust_remote_code,
        "output_loading_info": True,
        # They are told by name, and refused, once all is read.
        "ignore_mismatched_sizes": True,
        dtype_name: options.dtype,
        **({} if source.gguf is None else {"gguf_file": source.gguf}),
    }


def _loaded(auto: Any, source: Source, arguments: dict[str, Any], attention: str | None) -> tuple[Any, dict[str, Any]]:
    try:
        return auto.from_pretrained(
            source.place, **arguments, **({} if attention is None else {"attn_implementation": attention})
        )
    except ValueError as error:
        if attention is None or "attention" not in str(error):
            raise
        # The class lacks that path; the column `attention` says what ran.
        return auto.from_pretrained(source.place, **arguments, attn_implementation="eager")
    except KeyError as error:
        if error.args and error.args[0] in (rope_rules(text_config(source.config.to_dict())) or ()):
            raise CheckpointError(
                f"{source.where} asks for RoPE of the type {error.args[0]!r}, which transformers "
                f"{import_transformers().__version__} does not know; install another version, or name a rule with "
                "--rope-scaling"
            ) from error
        raise


def _attention(source: Source, name: str) -> str | None:
    chosen = None if name == "auto" else "eager" if name == "dense" else name.removeprefix("hf-")
    falcon = getattr(source.config, "model_type", "") == "falcon" and getattr(source.config, "alibi", False)
    if falcon and chosen not in (None, "sdpa"):
        raise SpecError(f"{source.where}: only hf-sdpa adds Falcon's ALiBi once; leave --attention {name} out")
    return "sdpa" if falcon else chosen


def _placed(model: nn.Module) -> bool:
    """Whether the weights lie in memory, and not on PyTorch's meta device."""
    return all(each.device.type != "meta" for each in model.parameters())


def _refuse_loose_ends(info: dict[str, Any], model: nn.Module, source: Source) -> None:
    missing = list(map(str, info.get("missing_keys", ())))
    unexpected = [str(each) for each in info.get("unexpected_keys", ()) if not str(each).endswith(_STORED_BUFFERS)]
    if not missing:
        unexpected = _without_towers(unexpected, model, source)
    for what, names in (
        ("lacks", missing),
        ("has weights the config does not know:", unexpected),
        ("has weights of another shape than the config's:", [str(one[0]) for one in info.get("mismatched_keys", ())]),
    ):
        listed = sorted(names)
        if listed:
            raise CheckpointError(f"{source.where} {what} {', '.join(listed[:4])}{' ...' if len(listed) > 4 else ''}")


def _without_towers(unexpected: Sequence[str], model: nn.Module, source: Source) -> list[str]:
    """The names that lie in a part of which something was read, and not in a whole tower that was passed over."""
    if not unexpected:
        return []
    read = {name for name, _ in model.named_parameters()} | (weight_names(Path(source.place)) - set(unexpected))
    known = {".".join(name.split(".")[:depth]) for name in read for depth in range(1, name.count(".") + 2)}

    def of_a_tower(name: str) -> bool:
        parts = name.split(".")
        alone = next((depth for depth in range(1, len(parts)) if ".".join(parts[:depth]) not in known), len(parts))
        return alone <= _NEAR_ROOT and not any(part.isdigit() for part in parts[:alone])

    return [name for name in unexpected if not of_a_tower(name)]
