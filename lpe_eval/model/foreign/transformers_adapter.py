"""Adapters: a folder with `adapter_config.json`, which changes the weights of another model through `peft`.

Choices:
    * The adapter is put beside the weights and not merged into them, so nothing is rounded.
    * Every number of its file is used once and none is left over, else it is refused.
    * Those that put made-up tokens before the text (prompt and prefix tuning) are refused: positions would move, and
      which tokens count would be another question.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from lpe_eval.errors import CheckpointError, MissingExtra
from lpe_eval.model.foreign.transformers_folder import ADAPTER, ADAPTER_WEIGHTS, digest_of, refuse_changes
from lpe_eval.plain import Unreadable, json_of, read_plain

_TOLD = ("peft_type", "r", "lora_alpha", "use_dora", "use_rslora")


class Adapter(NamedTuple):
    """An adapter found and not yet applied."""

    folder: Path
    base: str
    """The reference of the model under it, as its config has it."""
    digest: str
    config: Mapping[str, Any]

    def recorded(self, base_digest: str) -> dict[str, Any]:
        """What a provenance says of it."""
        import peft

        told = {name: self.config[name] for name in _TOLD if self.config.get(name)}
        return {
            "adapter": {"name": self.folder.name, **told, "digest": self.digest, "peft": peft.__version__},
            "base": {"name": self.base, "digest": base_digest},
        }


def is_adapter(folder: Path) -> bool:
    """Whether a folder says that it holds an adapter."""
    return (folder / ADAPTER).is_file()


def find_adapter(folder: Path, base: str | None, where: str) -> Adapter:
    """Reads what an adapter says of itself.

    Args:
        folder: with its config and its weights.
        base: instead of the model that its config names.
        where: what messages call it.

    Raises:
        CheckpointError: a file is missing or damaged, or it is of a kind that cannot be measured.
    """
    try:
        config = json_of(read_plain(folder / ADAPTER))
    except Unreadable as error:
        raise CheckpointError(f"{where}: {ADAPTER} {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise CheckpointError(f"{where}: {ADAPTER} names no peft_type, so it is no adapter of peft")
    if any(word in config["peft_type"].upper() for word in ("PROMPT", "PREFIX", "P_TUNING")):
        raise CheckpointError(
            f"{where} is an adapter of the type {config['peft_type']}, which puts made-up tokens before the text; only "
            "adapters that change weights can be measured"
        )
    weights = [folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file()]
    if not weights:
        raise CheckpointError(f"{where}: {ADAPTER} is there and its weights are not ({' or '.join(ADAPTER_WEIGHTS)})")
    refuse_changes(sorted({*folder.glob("*.bin"), *folder.glob("*.safetensors")} - set(weights)), where)
    named = base or config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise CheckpointError(f"{where}: {ADAPTER} does not say which model is under it; add ?base=PATH")
    return Adapter(folder, _beside(folder, named), digest_of([folder / ADAPTER, weights[0]]), config)


def apply_adapter(model: Any, adapter: Adapter, where: str) -> nn.Module:
    """The model with the adapter in it, of the same class.

    Raises:
        MissingExtra: `peft` is not installed.
        CheckpointError: the adapter does not fit the model.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingExtra("an adapter", "peft") from error
    try:
        with warnings.catch_warnings():
            # Of what is deprecated between the two libraries, and of keys, which are compared below.
            warnings.simplefilter("ignore")
            held = peft.load_peft_weights(str(adapter.folder), device="cpu")
            _resize(model, held)
            wrapped = peft.PeftModel.from_pretrained(model, str(adapter.folder), is_trainable=False)
    except (ValueError, RuntimeError, TypeError, KeyError, NotImplementedError, ImportError) as error:
        line = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{where} does not fit the model {adapter.base}: {line}") from error
    wanted = set(peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    _refuse_loose(set(held), wanted, where)
    return wrapped.get_base_model()


def _refuse_loose(held: set[str], wanted: set[str], where: str) -> None:
    embeddings = {name for name in held - wanted if "embed" in name or "lm_head" in name}
    for what, names in (("lacks", wanted - held), ("has numbers that belong nowhere:", held - wanted - embeddings)):
        listed = sorted(names)
        if listed:
            raise CheckpointError(f"{where} {what} {', '.join(listed[:4])}{' ...' if len(listed) > 4 else ''}")


def _resize(model: Any, held: Mapping[str, Any]) -> None:
    """As many symbols as the adapter's own embeddings have, if it brings some."""
    rows = {each.shape[0] for name, each in held.items() if name.endswith(("embed_tokens.weight", "lm_head.weight"))}
    if len(rows) == 1 and rows != {model.get_input_embeddings().weight.shape[0]}:
        model.resize_token_embeddings(rows.pop(), mean_resizing=False)


def _beside(folder: Path, named: str) -> str:
    """A base that is a path of nowhere may lie beside the adapter."""
    path = Path(named).expanduser()
    if path.exists():
        return str(path)
    neighbour = folder.resolve().parent / named
    return str(neighbour) if neighbour.is_dir() else named
