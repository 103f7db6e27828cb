"""Causal language models of `transformers` (4.51 or later), from a local folder or from the Hub.

An address is a folder, a `.gguf` file or `org/name[@revision]`, and may end in settings that a flag can give as well:
`?rope_scaling=yarn:4&rope_theta=500000`, `?remap=self_extend:group=8,window=1024`. So one run can hold a model with
and without a scaling, or at other distances. A GGUF file of the
Hub is `org/name?gguf=FILE`. A folder or a repository with an adapter is the model under it with the adapter applied;
`?base=PATH` names another place of that model.

Choices:
    * Versions of `transformers` before 4.51 are not supported: some ignore sliding windows on some paths.
    * Loading is strict, see `transformers_loading`. Of a multimodal model the text decoder is measured.
    * Nothing is unpickled beyond what PyTorch's `weights_only` allows, and Python code of a checkpoint
      runs only with `--trust-remote-code`.
    * MPT: `max_seq_len` follows the text, so that a model runs beyond it, and `attn_config.alibi_bias_max`
      is obeyed, which the class in `transformers` forgets. What else that class does not do is refused.
    * ALiBi in half precision: the library builds the bias of BLOOM and Falcon in the type of the weights, and so it is
      here. In bfloat16 BLOOM's loss moves by hundredths of a nat from some thousand tokens on; --dtype float32 is
      exact. Falcon's bias is divided by sqrt(d) and built in bfloat16 always.
    * The digest of a folder is over config and weight files; that of a Hub model is over its commit.
      A RoPE override, a remap and an adapter are part of either.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from lpe_eval.errors import CheckpointError
from lpe_eval.model.checkpoint import CheckpointFormat, LoadOptions, Peek
from lpe_eval.model.foreign.rope_override import rotary_modules, verify
from lpe_eval.model.foreign.transformers_address import address_of
from lpe_eval.model.foreign.transformers_config import depends_on_length, encoding_label, text_config, with_aliases
from lpe_eval.model.foreign.transformers_folder import ADAPTER, gguf_types, has_weights
from lpe_eval.model.foreign.transformers_library import failures_told
from lpe_eval.model.foreign.transformers_loading import build, refuse_unplaceable
from lpe_eval.model.foreign.transformers_model import TransformersModel, text_decoder
from lpe_eval.model.foreign.transformers_placing import device_of_inputs, lies_on_disk, places_of
from lpe_eval.model.foreign.transformers_source import Source, find
from lpe_eval.model.language_model import LanguageModel, ModelFacts
from lpe_eval.model.tensor_parallel import led
from lpe_eval.model.weight_files import stored_types
from lpe_eval.plain import Unreadable, json_of, read_plain

_PATHS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")


class HuggingFace(CheckpointFormat):
    """Opens any causal language model of `transformers`."""

    heeds: ClassVar[frozenset[str]] = frozenset(
        {"revision", "rope_scaling", "rope_theta", "remap", "device_map", "tensor_parallel"}
    )

    @classmethod
    def attentions(cls) -> Sequence[str]:
        return ["dense", *(f"hf-{path}" for path in _PATHS), *_PATHS]

    @classmethod
    def recognises(cls, path: Path) -> bool:
        if path.suffix == ".gguf" and path.is_file():
            return True
        if not path.is_dir():
            return False
        return (
            any(path.glob("*.gguf"))
            or _says(path / ADAPTER, "peft_type")
            or _says(path / "config.json", "model_type", "architectures")
        )

    @classmethod
    def peek(cls, path: str | Path, options: LoadOptions) -> Peek:
        with failures_told(f"hf:{path}", Path(path).exists()):
            source = find(str(path), options)
            refuse_unplaceable(source, options)
        return Peek(source.name, source.tokenizer, source.digest)

    @classmethod
    def stored_types(cls, path: str | Path) -> list[str]:
        folder = Path(address_of(str(path), LoadOptions()).place)
        quantised = [folder] if folder.is_file() else sorted(folder.glob("*.gguf"))
        if quantised and not has_weights(folder):
            return gguf_types(quantised[0])
        found = [sorted(folder.glob(pattern)) for pattern in ("*.safetensors", "*.bin")]
        return stored_types(next((files for files in found if files), []))

    @classmethod
    def load(cls, path: str | Path, options: LoadOptions) -> LanguageModel:
        return led(str(path), options, cls.opened) if options.tensor_parallel else cls.opened(path, options)

    @classmethod
    def opened(cls, path: str | Path, options: LoadOptions) -> LanguageModel:
        """The model, or this rank's share of it."""
        with failures_told(f"hf:{path}", Path(path).exists()):
            return _opened(find(str(path), options), options)


def _opened(source: Source, options: LoadOptions) -> LanguageModel:
    model = build(source, options)
    raw: dict[str, Any] = source.config.to_dict()
    config = text_config(raw)
    facts = ModelFacts(
        name=source.name,
        format="huggingface",
        encoding=encoding_label(config),
        train_length=source.train_length,
        vocab_size=0,
        tokenizer=source.tokenizer,
        n_parameters=sum(each.numel() for each in model.parameters()),
        digest=source.digest,
        prefix_stable=not depends_on_length(config),
    )
    recorded = {} if source.adapter is None else source.adapter.recorded(source.base_digest)
    if options.device_map is not None:
        recorded["device_map"] = places_of(model)
        options = options._replace(device=device_of_inputs(model, options.device))
    sizes = with_aliases(source.config)
    try:
        opened = TransformersModel(model, facts, sizes, recorded, source.where, options)
    except CheckpointError:
        inner = text_decoder(model)
        if inner is None:
            raise
        opened = TransformersModel(inner, facts, sizes, recorded, source.where, options)
    if options.device_map is not None and lies_on_disk(model):
        opened.reads_from(source.place)
    if source.published is not None and source.override is not None:
        rotary = rotary_modules(model, source.override.layer_type)
        used = [each for each in rotary if each in opened.seen.called] or rotary
        verify(used, text_config(source.published), config, source.override, source.where)
    if source.remapping is not None:
        opened.remap(source.remapping)
    return opened


def _says(file: Path, *names: str) -> bool:
    """Whether a file holds a JSON object with one of these keys."""
    if not file.is_file():
        return False
    try:
        held = json_of(read_plain(file))
    except Unreadable:
        return False
    return isinstance(held, dict) and any(name in held for name in names)
