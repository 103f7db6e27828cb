"""Causal language models of `transformers` (4.48 or later), from a local folder or from the Hub.

An address is a folder or `org/name[@revision]`, and may end in settings that a flag can give as well:
`?rope_scaling=yarn:4&rope_theta=500000`. So one run can hold a model with and without a scaling.

Choices:
    * Loading is strict. `transformers` fills missing weights with random numbers and passes over those
      it does not know; here both are errors, except buffers that older versions stored.
    * Nothing is unpickled beyond what PyTorch's `weights_only` allows, and Python code of a checkpoint
      runs only with `--trust-remote-code`.
    * MPT: `max_seq_len` follows the text, so that a model runs beyond it, and `attn_config.alibi_bias_max`
      is obeyed, which the class in `transformers` forgets. Falcon with ALiBi runs through
      `sdpa` only, because the eager code of transformers 5.23 adds the bias twice, before and with the
      mask. Its bias is divided by sqrt(d) and built in bfloat16 there, and so it is here.
    * The digest of a folder is over config and weight files; that of a Hub model is over its commit.
      A RoPE override is part of either.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import nn

from lpe_eval.errors import CheckpointError, SpecError
from lpe_eval.model.checkpoint import CheckpointFormat, LoadOptions, Peek
from lpe_eval.model.foreign.rope_override import overridden, parse_override, rotary_modules, verify
from lpe_eval.model.foreign.transformers_config import depends_on_length, encoding_label, refuse_larger, train_length
from lpe_eval.model.foreign.transformers_library import failures_told, import_transformers, major, quiet
from lpe_eval.model.foreign.transformers_model import FrozenRotary, TransformersModel
from lpe_eval.model.language_model import LanguageModel, ModelFacts
from lpe_eval.model.reference import split_settings
from lpe_eval.model.weight_files import stored_types
from lpe_eval.plain import Unreadable, json_of, read_plain

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "spiece.model")
_WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json", "*.bin.index.json")
_STORED_BUFFERS = (".inv_freq", ".attn.bias", ".masked_bias", ".attention.bias", ".embed_positions", "position_ids")
"""Ends of the names of buffers that older versions wrote into checkpoints and every version computes."""
_PATHS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")


class HuggingFace(CheckpointFormat):
    """Opens any causal language model of `transformers`."""

    heeds: ClassVar[frozenset[str]] = frozenset({"revision", "rope_scaling", "rope_theta"})

    @classmethod
    def attentions(cls) -> Sequence[str]:
        return ["dense", *(f"hf-{path}" for path in _PATHS), *_PATHS]

    @classmethod
    def recognises(cls, path: Path) -> bool:
        file = path / "config.json"
        if not file.is_file():
            return False
        try:
            config = json_of(read_plain(file))
        except Unreadable:
            return False
        return isinstance(config, dict) and ("model_type" in config or "architectures" in config)

    @classmethod
    def peek(cls, path: str | Path, options: LoadOptions) -> Peek:
        with failures_told(f"hf:{path}", Path(path).is_dir()):
            source = _source(path, options)
        return Peek(source.name, source.tokenizer, source.digest)

    @classmethod
    def stored_types(cls, path: str | Path) -> list[str]:
        folder = Path(_with_settings(str(path), LoadOptions())[0])
        found = [sorted(folder.glob(pattern)) for pattern in ("*.safetensors", "*.bin")]
        return stored_types(next((files for files in found if files), []))

    @classmethod
    def load(cls, path: str | Path, options: LoadOptions) -> LanguageModel:
        with failures_told(f"hf:{path}", Path(path).is_dir()):
            return cls._opened(_source(path, options), options)

    @classmethod
    def _opened(cls, source: "_Source", options: LoadOptions) -> LanguageModel:
        model = _build(source, options)
        config = source.config.to_dict()
        rotary = [FrozenRotary.of(module) for module in rotary_modules(model)]
        if source.published is not None:
            verify(model, source.published, config, source.where)
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
        return TransformersModel(model, facts, rotary, source.where, options)


class _Source(NamedTuple):
    """A model found and not yet built."""

    where: str
    """For messages."""
    place: str
    """What `from_pretrained` takes."""
    commit: str | None
    """On the Hub, so that a branch that moves does not change what is read."""
    config: Any
    """Of `transformers`, with any override in it."""
    published: dict[str, Any] | None
    """The config as published, if there is an override."""
    name: str
    tokenizer: str
    digest: str
    train_length: int | None


def _source(path: str | Path, options: LoadOptions) -> _Source:
    transformers = import_transformers()
    place, options = _with_settings(str(path), options)
    folder = Path(place)
    local = folder.is_dir()
    where = f"hf:{place}"
    revision = options.revision
    if not local:
        place, at, named = place.partition("@")
        if at and revision is not None and revision != named:
            raise SpecError(f"{where} names the revision {named}, and --revision names {revision}; give one")
        revision = named or revision
        if folder.exists() or place.count("/") > 1 or place[:1] in "./~\\":
            raise CheckpointError(f"{where} is no folder; a local model is a folder with config.json and weights")
    elif revision is not None:
        raise SpecError(f"--revision {revision} has no effect on the local folder {place}; leave it out")
    elif not (folder / "config.json").is_file():
        raise CheckpointError(f"{where}: there is no config.json, so this is no Hugging Face model")
    override = parse_override(options.rope_scaling, options.rope_theta)
    with failures_told(where, local), quiet(transformers):
        commit = None if local else _commit(transformers, place, revision or "main", where)
        config = transformers.AutoConfig.from_pretrained(
            place, revision=commit or "main", trust_remote_code=options.trust_remote_code
        )
    if "rope_parameters" in config.to_dict() and major(transformers) < 5:
        raise CheckpointError(
            f"{where} keeps its RoPE in `rope_parameters`, which the installed transformers {transformers.__version__} "
            "ignores; install transformers 5"
        )
    published = config.to_dict() if override is not None else None
    length = train_length(config.to_dict())
    if commit is None:
        digest = _folder_digest(folder, where, options.trust_remote_code)
        held = sum(file.stat().st_size for file in {found for each in _WEIGHTS for found in folder.glob(each)})
        refuse_larger(config.to_dict(), held, where)
    else:
        digest = hashlib.sha256(f"{place}@{commit}".encode()).hexdigest()
    name = folder.resolve().name if local else place.rpartition("/")[2]
    if override is not None and published is not None:
        with failures_told(where, local), quiet(transformers):
            config = type(config).from_dict(overridden(published, override))
        listed = [options.rope_scaling] if options.rope_scaling is not None else []
        listed += [f"theta={options.rope_theta:g}"] if options.rope_theta is not None else []
        name = " ".join([name, *listed])
        digest = hashlib.sha256(f"{digest}\0{json.dumps(override)}".encode()).hexdigest()
    tokenizer = options.tokenizer or (_own_tokenizer(folder, place) if local else _hub_tokenizer(place, revision))
    return _Source(where, place, commit, config, published, name, tokenizer, digest, length)


def _with_settings(path: str, options: LoadOptions) -> tuple[str, LoadOptions]:
    if Path(path).exists():
        return path, options
    address, settings = split_settings(path)
    for key, value in settings.items():
        match key:
            case "rope_scaling":
                options = options._replace(rope_scaling=json.dumps(value) if isinstance(value, dict) else str(value))
            case "rope_theta":
                try:
                    options = options._replace(rope_theta=float(value))
                except (TypeError, ValueError):
                    raise SpecError(f"hf:{path}: rope_theta must be a number, not {value!r}") from None
            case "revision" | "tokenizer":
                options = options._replace(**{key: str(value)})
            case _:
                raise SpecError(
                    f"hf:{path}: there is no setting {key}; known: revision, rope_scaling, rope_theta, tokenizer"
                )
    return address, options


def _own_tokenizer(folder: Path, place: str) -> str:
    """The name of the tokenizer in a folder; empty where there is none, which matters only where text is encoded."""
    return f"hf:{place}" if any((folder / file).is_file() for file in _TOKENIZER_FILES) else ""


def _hub_tokenizer(place: str, revision: str | None) -> str:
    return f"hf:{place}@{revision}" if revision else f"hf:{place}"


def _commit(transformers: Any, place: str, revision: str, where: str) -> str:
    """The commit that a branch or tag means now, or meant when it was cached."""
    file = transformers.utils.cached_file(place, "config.json", revision=revision)
    found = re.search(r"snapshots[/\\]([0-9a-f]{40})[/\\]", str(file))
    if found is None:
        raise CheckpointError(f"{where}: the Hub does not say which commit this is; pass a local folder")
    return found[1]


def _folder_digest(folder: Path, where: str, with_code: bool) -> str:
    weights = sorted({file for pattern in _WEIGHTS for file in folder.glob(pattern)})
    if not any(file.suffix in (".safetensors", ".bin") for file in weights):
        raise CheckpointError(f"{where}: there are no weights (*.safetensors or *.bin)")
    summed = hashlib.sha256()
    code = sorted(folder.glob("*.py")) if with_code else []
    for file in (folder / "config.json", *weights, *code):
        stat = file.stat()
        summed.update(f"{file.name}\0{_file_digest(file.resolve(), stat.st_size, stat.st_mtime_ns)}\n".encode())
    return summed.hexdigest()


@lru_cache(maxsize=4096)
def _file_digest(file: Path, size: int, changed: int) -> str:
    """Keyed by size and time as well, so that large files are read once and never stale."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _build(source: _Source, options: LoadOptions) -> nn.Module:
    transformers = import_transformers()
    kind = getattr(source.config, "model_type", "")
    chosen = _attention(options.attention)
    if kind == "falcon" and getattr(source.config, "alibi", False) and chosen != "sdpa":
        if chosen is not None:
            raise SpecError(
                f"{source.where}: only hf-sdpa adds Falcon's ALiBi once; leave --attention {options.attention} out"
            )
        chosen = "sdpa"
    dtype_name = "dtype" if major(transformers) >= 5 else "torch_dtype"
    arguments = {
        "config": source.config,
        "revision": source.commit or "main",
        "trust_remote_code": options.trust_remote_code,
        "output_loading_info": True,
        dtype_name: options.dtype,
    }
    local = Path(source.place).is_dir()
    with failures_told(source.where, local), quiet(transformers):
        try:
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                source.place, **arguments, **({} if chosen is None else {"attn_implementation": chosen})
            )
        except ValueError as error:
            if chosen is None or "attention" not in str(error):
                raise
            # The class lacks that path; the column `attention` says what ran.
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                source.place, **arguments, attn_implementation="eager"
            )
    _refuse_loose_ends(info, source.where)
    bias_max = getattr(getattr(source.config, "attn_config", None), "alibi_bias_max", None)
    builder = getattr(model.base_model, "build_mpt_alibi_tensor", None)
    if kind == "mpt" and builder is not None and bias_max is not None:
        model.base_model.build_mpt_alibi_tensor = partial(builder, alibi_bias_max=bias_max)
    return model.to(options.device).eval()


def _attention(name: str) -> str | None:
    if name == "auto":
        return None
    return "eager" if name == "dense" else name.removeprefix("hf-")


def _refuse_loose_ends(info: dict[str, Any], where: str) -> None:
    unexpected = [name for name in info.get("unexpected_keys", ()) if not str(name).endswith(_STORED_BUFFERS)]
    for what, names in (
        ("lacks", info.get("missing_keys", ())),
        ("has weights the config does not know:", unexpected),
        ("has weights of another shape than the config's:", [one[0] for one in info.get("mismatched_keys", ())]),
    ):
        listed = sorted(map(str, names))
        if listed:
            raise CheckpointError(f"{where} {what} {', '.join(listed[:4])}{' ...' if len(listed) > 4 else ''}")
