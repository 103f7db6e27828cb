"""The files of a GPT-NeoX checkpoint: where they are, and how the shards of a model are put together.

Source: DeepSpeed's pipeline checkpoints and `megatron/checkpointing.py`, `megatron/mpu/layers.py` of
chijames/KERPLE at 25be3d7; `tools/merge20b.py` there and `tools/ckpts/convert_neox_to_hf.py` of
EleutherAI/gpt-neox at ea7aefd8. Two layouts, both in a folder `global_step<n>` that `latest` names:

    layer_02-model_00-model_states.pt    one file for each layer and model-parallel rank (a pipeline of
                                         any size, even one); the number counts the layers of the pipeline
    mp_rank_00_model_states.pt           one file for each rank, its "module" holding `sequential.2.<key>`

Deviations and choices:
    * `tools/ckpts/convert_neox_to_hf.py` adds up the biases of row-parallel layers over ranks. That is what
      the model computes only with gpt_j_residual, where each rank adds its bias before the sum; otherwise the
      bias is added once, after it, and the ranks hold the same one. We take what the model computes.
    * Norms and other replicated parameters are averaged, as in merge20b.py; equal ones stay as they are.
    * In the first layout mp_rank files hold no weights and are not opened.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lpe_eval.errors import CheckpointError
from lpe_eval.model.foreign.pickles import load_plain, numbers

_LAYER = re.compile(r"layer_(\d+)(?:-model_(\d+))?-model_states\.pt")
_RANK = re.compile(r"mp_rank_(\d+)_model_states\.pt")
_STEP = re.compile(r"global_step\d+")

_SPLIT_BY_ROW = re.compile(
    r"word_embeddings\.weight|attention\.query_key_value\.(weight|bias)|mlp\.(dense_h_to_4h|linear1)\.(weight|bias)|"
    r"attention\.rpe\.(bias_p|bias_a|wei_p|wei_a|slopes)|attention\.alibi_embed\.slopes"
)
_SPLIT_BY_COLUMN = re.compile(r"attention\.dense\.weight|mlp\.(dense_4h_to_h|linear2)\.weight|attention\.rpe\.weight")
_ADDED = re.compile(r"attention\.dense\.bias|mlp\.(dense_4h_to_h|linear2)\.bias")


class Step(NamedTuple):
    """One saved step: its folder, and the folder of the run around it."""

    folder: Path
    run: Path


class Weights(NamedTuple):
    """All weights, by layer of the pipeline and key, and the arguments that were saved beside them."""

    layers: dict[int, dict[str, Tensor]]
    arguments: Mapping[str, object]


def find_step(path: Path) -> Step | None:
    """The step that `path` is or holds; None where there is none.

    Raises:
        CheckpointError: `latest` names a folder that is missing, or there are several steps and no `latest`.
    """
    if not path.is_dir():
        return None
    if _weight_files(path):
        return Step(path, path.parent if _STEP.fullmatch(path.resolve().name) else path)
    latest = path / "latest"
    if latest.is_file():
        name = latest.read_bytes()[:200].decode("utf-8", "replace").strip()
        if not _STEP.fullmatch(name):
            return None
        if not (path / name).is_dir():
            raise CheckpointError(f"{latest} names {name}, and there is no such folder beside it")
        return Step(path / name, path)
    steps = sorted(found.name for found in path.iterdir() if _STEP.fullmatch(found.name) and found.is_dir())
    if len(steps) > 1:
        raise CheckpointError(f"{path} holds {', '.join(steps)} and no file `latest`; name one of these folders")
    return Step(path / steps[0], path) if steps else None


def weight_files(step: Step) -> list[Path]:
    """The files that hold weights, in a fixed order.

    Raises:
        CheckpointError: there is none.
    """
    found = _weight_files(step.folder)
    if not found:
        raise CheckpointError(f"{step.folder} holds no layer_*-model_states.pt and no mp_rank_*_model_states.pt")
    return found


def read_weights(step: Step, ranks: int, gpt_j_residual: bool) -> Weights:
    """Reads every weight and joins the shards of model parallelism.

    Args:
        step: the saved step.
        ranks: how many shards the configuration says there are.
        gpt_j_residual: whether ranks add their biases before the sum.

    Raises:
        CheckpointError: a shard is missing or unreadable, or shards do not fit together.
    """
    files = weight_files(step)
    if _LAYER.fullmatch(files[0].name):
        shards: dict[int, dict[int, dict[str, Tensor]]] = {}
        for file in files:
            layer, rank = _numbers(file)
            shards.setdefault(layer, {})[rank] = _tensors(load_plain(file), file)
        for layer, found in shards.items():
            _require_ranks(found, ranks, step.folder, f"layer_{layer:02d}-model_{{:02d}}-model_states.pt")
        arguments: Mapping[str, object] = {}
    else:
        states = {_numbers(file)[1]: (load_plain(file, numbers()), file) for file in files}
        _require_ranks(states, ranks, step.folder, "mp_rank_{:02d}_model_states.pt")
        shards = {}
        for rank, (state, file) in states.items():
            for layer, weights in _by_layer(state, file).items():
                shards.setdefault(layer, {})[rank] = weights
        saved = states[0][0].get("args")
        arguments = saved if isinstance(saved, dict) else {}
    embeddings = [shard.get("word_embeddings.weight") for shard in shards.get(0, {}).values()]
    symbols = sum(len(each) for each in embeddings if each is not None)
    joined = {
        layer: _join([found[rank] for rank in sorted(found)], gpt_j_residual, symbols, f"{step.folder}, layer {layer}")
        for layer, found in sorted(shards.items())
    }
    return Weights(joined, arguments)


def embedding_rows(weights: Weights, where: str) -> int:
    """Rows of the embedding, padding included.

    Raises:
        CheckpointError: there is no embedding.
    """
    found = weights.layers.get(0, {}).get("word_embeddings.weight")
    if found is None:
        raise CheckpointError(f"{where} holds no word_embeddings.weight in layer 0")
    return len(found)


def _weight_files(folder: Path) -> list[Path]:
    names = sorted(file.name for file in folder.iterdir() if file.is_file())
    layers = [name for name in names if _LAYER.fullmatch(name)]
    return [folder / name for name in layers or [name for name in names if _RANK.fullmatch(name)]]


def _numbers(file: Path) -> tuple[int, int]:
    match = _LAYER.fullmatch(file.name)
    if match is not None:
        return int(match[1]), int(match[2] or 0)
    match = _RANK.fullmatch(file.name)
    assert match is not None
    return 0, int(match[1])


def _require_ranks(found: Mapping[int, object], ranks: int, folder: Path, pattern: str) -> None:
    missing = [rank for rank in range(ranks) if rank not in found]
    if missing:
        raise CheckpointError(
            f"{folder / pattern.format(missing[0])} is missing: the configuration has model_parallel_size {ranks}"
        )
    if len(found) > ranks:
        raise CheckpointError(
            f"{folder} holds {pattern.format(max(found))}, but the configuration has model_parallel_size {ranks}"
        )


def _tensors(content: object, file: Path) -> dict[str, Tensor]:
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise CheckpointError(f"{file} does not hold tensors by name")
    return dict(content)


def _by_layer(state: object, file: Path) -> dict[int, dict[str, Tensor]]:
    module = state.get("module") if isinstance(state, dict) else None
    if not isinstance(module, dict):
        raise CheckpointError(f"{file} holds no weights, and there is no layer_*-model_states.pt beside it")
    layers: dict[int, dict[str, Tensor]] = {}
    for key, value in _tensors(module, file).items():
        match = re.fullmatch(r"(?:module\.)?sequential\.(\d+)\.(.+)", key)
        if match is None:
            raise CheckpointError(f"{file} holds {key!r}, where GPT-NeoX has sequential.<layer>.<name>")
        layers.setdefault(int(match[1]), {})[match[2]] = value
    return layers


def _join(shards: list[dict[str, Tensor]], gpt_j_residual: bool, symbols: int, where: str) -> dict[str, Tensor]:
    if len(shards) == 1:
        return shards[0]
    for other in shards[1:]:
        differing = sorted(shards[0].keys() ^ other.keys())
        if differing:
            raise CheckpointError(f"{where}: only some of the model-parallel shards hold {differing[0]}")
    try:
        return {key: _join_one(key, [shard[key] for shard in shards], gpt_j_residual, symbols) for key in shards[0]}
    except RuntimeError as error:
        raise CheckpointError(f"{where}: the model-parallel shards do not fit together: {error}") from error


def _join_one(key: str, parts: list[Tensor], gpt_j_residual: bool, symbols: int) -> Tensor:
    if _SPLIT_BY_ROW.fullmatch(key):
        return torch.cat(parts, dim=0)
    if _SPLIT_BY_COLUMN.fullmatch(key):
        return torch.cat(parts, dim=1)
    if key == "final_linear.weight":
        # output_layer_parallelism "row" shares out the channels, "column" the symbols.
        return torch.cat(parts, dim=1 if len(parts[0]) == symbols else 0)
    stacked = torch.stack(parts)
    if _ADDED.fullmatch(key) and gpt_j_residual:
        return stacked.sum(0)
    if not stacked.is_floating_point() or bool((stacked == stacked[:1]).all()):
        return parts[0]
    return stacked.float().mean(0).to(stacked.dtype)
