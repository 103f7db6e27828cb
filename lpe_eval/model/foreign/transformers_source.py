"""A model of `transformers`, found and not yet built: its config, name, tokenizer and digest.

It is a local folder, a GGUF file, a model id of the Hub, or an adapter in a folder or on the Hub.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from lpe_eval.errors import CheckpointError, MissingExtra, SpecError
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.foreign.rope_asked import RopeOverride, parse_override
from lpe_eval.model.foreign.rope_override import overridden
from lpe_eval.model.foreign.transformers_adapter import Adapter, find_adapter, is_adapter
from lpe_eval.model.foreign.transformers_address import Address, address_of
from lpe_eval.model.foreign.transformers_config import (
    encoding_label,
    refuse_larger,
    text_config,
    text_part,
    train_length,
)
from lpe_eval.model.foreign.transformers_folder import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    BOTH,
    WHOLE,
    digest_of,
    folder_digest,
    has_weights,
    weight_bytes,
)
from lpe_eval.model.foreign.transformers_library import failures_told, import_transformers, major, quiet
from lpe_eval.model.foreign.transformers_remap import refuse_unregistered
from lpe_eval.model.remap_options import Remapping, parse_remap
from lpe_eval.plain import first_line

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "spiece.model")


class Source(NamedTuple):
    """A model found and not yet built."""

    where: str
    """For messages."""
    place: str
    """What `from_pretrained` takes."""
    commit: str | None
    """On the Hub, so that a branch that moves does not change what is read."""
    gguf: str | None
    """A file at that place."""
    config: Any
    """Of `transformers`, with any override in it."""
    published: dict[str, Any] | None
    """The config as published, if there is an override."""
    override: RopeOverride | None
    remapping: Remapping | None
    name: str
    tokenizer: str
    digest: str
    base_digest: str
    """Without the adapter."""
    train_length: int | None
    adapter: Adapter | None = None


def find(path: str, options: LoadOptions) -> Source:
    """Finds a model and reads its config.

    Raises:
        SpecError: a setting cannot be.
        CheckpointError: it is not there, or not complete.
    """
    address = address_of(path, options)
    where = f"hf:{address.place}"
    folder = Path(address.place)
    if folder.is_dir():
        if address.options.revision is not None:
            raise SpecError(
                f"--revision {address.options.revision} has no effect on the local folder {folder}; leave it out"
            )
        if is_adapter(folder) and not has_weights(folder):
            return _under_adapter(address, folder, where)
        return _found(address, where, None)
    if folder.is_file():
        if folder.suffix != ".gguf":
            raise CheckpointError(f"{where} is no folder and no .gguf file; name the folder with config.json")
        return _found(address._replace(place=str(folder.parent), gguf=folder.name), where, None)
    place, at, named = address.place.partition("@")
    revision = address.options.revision
    if at and revision is not None and revision != named:
        raise SpecError(f"{where} names the revision {named}, and --revision names {revision}; give one")
    if folder.exists() or place.count("/") > 1 or place[:1] in "./~\\":
        raise CheckpointError(f"{where} is no folder; a local model is a folder with config.json and weights")
    address = address._replace(place=place, options=address.options._replace(revision=named or revision))
    adapter = _adapter_of_the_hub(place, named or revision or "main", where)
    if adapter is not None:
        return _under_adapter(address, adapter, where)
    return _found(address, where, named or revision or "main")


def _found(address: Address, where: str, revision: str | None) -> Source:
    transformers = import_transformers()
    place, options = address.place, address.options
    folder, local = Path(place), revision is None
    gguf = address.gguf or (_only_gguf(folder) if local else None)
    if local and gguf is None and not (folder / "config.json").is_file():
        raise CheckpointError(f"{where}: there is no config.json, so this is no Hugging Face model")
    if gguf is not None:
        _refuse_without_gguf()
    named = {} if gguf is None else {"gguf_file": gguf}
    with failures_told(where, local), quiet(transformers):
        commit = None if revision is None else _commit(transformers, place, gguf or "config.json", revision, where)
        config = transformers.AutoConfig.from_pretrained(
            place, revision=commit or "main", trust_remote_code=options.trust_remote_code, **named
        )
    raw = config.to_dict()
    if "rope_parameters" in text_config(raw) and major(transformers) < 5:
        raise CheckpointError(
            f"{where} keeps its RoPE in `rope_parameters`, which the installed transformers {transformers.__version__} "
            "ignores; install transformers 5"
        )
    if commit is not None:
        digest = hashlib.sha256(f"{place}@{commit}{f'/{gguf}' if gguf else ''}".encode()).hexdigest()
    elif gguf is not None:
        digest = digest_of([folder / gguf])
    else:
        digest = folder_digest(folder, where, options.trust_remote_code)
        refuse_larger(raw, weight_bytes(folder), where)
    name = Path(gguf).stem if gguf else folder.resolve().name if local else place.rpartition("/")[2]
    tokenizer = options.tokenizer or (_own_tokenizer(folder, gguf) if local else _hub_tokenizer(address, gguf))
    found = Source(
        *(where, place, commit, gguf, config, None, None, None),
        *(name, tokenizer, digest, digest, train_length(text_config(raw))),
    )
    return _remapped(_overridden(found, options), options)


def _overridden(source: Source, options: LoadOptions) -> Source:
    """With the change of RoPE that the options ask for, in its name and its digest too."""
    override = parse_override(options.rope_scaling, options.rope_theta)
    if override is None:
        return source
    published = source.config.to_dict()
    changed = _replaced(published, text_part(published), overridden(text_config(published), override))
    try:
        with quiet(import_transformers()):
            config = type(source.config).from_dict(changed)
    except (ValueError, KeyError, TypeError) as error:
        raise SpecError(
            f"{source.where}: transformers does not take this change of RoPE for a model of the type "
            f"{text_config(published).get('model_type')}: {first_line(error)}"
        ) from error
    listed = [options.rope_scaling] if options.rope_scaling is not None else []
    listed += [f"theta={options.rope_theta:g}"] if options.rope_theta is not None else []
    return source._replace(
        config=config,
        published=published,
        override=override,
        name=" ".join([source.name, *listed]),
        digest=hashlib.sha256(f"{source.digest}\0{json.dumps(override)}".encode()).hexdigest(),
    )


def _remapped(source: Source, options: LoadOptions) -> Source:
    """With the other distances that the options ask for, in its name and its digest too."""
    if options.remap is None:
        return source
    asked, config = parse_remap(options.remap), text_config(source.config.to_dict())
    if encoding_label(config).partition("(")[0] not in ("rope", "rope+none"):
        raise CheckpointError(
            f"{source.where}: a model of the type {config.get('model_type')} has no RoPE that its config describes, "
            "and a remap changes RoPE's distances; measure it without one"
        )
    if options.attention != "auto":
        raise SpecError(
            f"{source.where}: a remap computes attention in a way of its own; leave --attention {options.attention} out"
        )
    refuse_unregistered(source.config, import_transformers(), source.where)
    remapping = asked.resolved(source.train_length, source.where)
    return source._replace(
        remapping=remapping,
        name=f"{source.name} {asked.spelled}",
        digest=hashlib.sha256(f"{source.digest}\0{json.dumps(remapping.told())}".encode()).hexdigest(),
    )


def _replaced(config: dict[str, Any], keys: tuple[str, ...], part: dict[str, Any]) -> dict[str, Any]:
    if not keys:
        return part
    return {**config, keys[0]: _replaced(config[keys[0]], keys[1:], part)}


def _under_adapter(address: Address, folder: Path, where: str) -> Source:
    """The model under an adapter, with the adapter's name, tokenizer and digest."""
    adapter = find_adapter(folder, address.base, where)
    options = address.options._replace(revision=None, tokenizer=None)
    try:
        base = find(adapter.base, options._replace(tokenizer="bytes"))
    except CheckpointError as error:
        raise CheckpointError(
            f"{where} is an adapter of {adapter.base}, which cannot be opened; name the model with {where}?base=PATH "
            f"({error})"
        ) from error
    if base.adapter is not None:
        raise CheckpointError(f"{where} is an adapter of {adapter.base}, which is an adapter itself; merge that one")
    tokenizer = address.options.tokenizer
    if tokenizer is None and any((folder / file).is_file() for file in _TOKENIZER_FILES):
        tokenizer = f"hf:{address.place}"
    added = base.name.removeprefix(Path(adapter.base).name)
    return base._replace(
        where=where,
        name=f"{folder.resolve().name if Path(address.place).is_dir() else address.place.rpartition('/')[2]}{added}",
        tokenizer=tokenizer or find(adapter.base, options).tokenizer,
        digest=hashlib.sha256(f"{base.digest}\0{adapter.digest}".encode()).hexdigest(),
        base_digest=base.digest,
        adapter=adapter,
    )


def _adapter_of_the_hub(place: str, revision: str, where: str) -> Path | None:
    """The cached folder of an adapter, if the repository holds one.

    Raises:
        CheckpointError: it holds whole weights as well.
    """
    transformers = import_transformers()

    def cached(name: str) -> Path | None:
        try:
            return Path(transformers.utils.cached_file(place, name, revision=revision))
        except (OSError, TypeError):
            return None

    def there(name: str) -> bool:
        try:
            return transformers.utils.hub.has_file(place, name, revision=revision)
        except (OSError, ValueError):
            return False

    with quiet(transformers):
        held = cached(ADAPTER)
        if held is None:
            return None
        if any(there(name) for name in WHOLE):
            raise CheckpointError(BOTH.format(where=where))
        return held.parent if any(cached(name) for name in ADAPTER_WEIGHTS) else None


def _only_gguf(folder: Path) -> str | None:
    """The GGUF file of a folder that holds no other weights."""
    held = sorted(folder.glob("*.gguf"))
    return held[0].name if len(held) == 1 and not (folder / "config.json").is_file() else None


def _refuse_without_gguf() -> None:
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise MissingExtra("a GGUF file", "gguf") from error


def _own_tokenizer(folder: Path, gguf: str | None) -> str:
    """The name of the tokenizer in a folder; empty where there is none, which matters only where text is encoded."""
    if any((folder / file).is_file() for file in _TOKENIZER_FILES):
        return f"hf:{folder}"
    return "" if gguf is None else f"hf:{folder / gguf}"


def _hub_tokenizer(address: Address, gguf: str | None) -> str:
    revision = address.options.revision
    return f"hf:{address.place}@{revision}" if revision else f"hf:{address.place}"


def _commit(transformers: Any, place: str, file: str, revision: str, where: str) -> str:
    """The commit that a branch or tag means now, or meant when it was cached."""
    cached = transformers.utils.cached_file(place, file, revision=revision)
    found = re.search(r"snapshots[/\\]([0-9a-f]{40})[/\\]", str(cached))
    if found is None:
        raise CheckpointError(f"{where}: the Hub does not say which commit this is; pass a local folder")
    return found[1]
