"""What GPT-NeoX and its relatives call a position encoding and its parameters, and what they are here.

Source: `pos_emb` and the modules it builds in chijames/KERPLE at 25be3d7 (`mpu/layers.py`),
chuanyang-Zheng/DAPE at bde344a (`model/positional_embeddings.py`, `model/transformer.py`) and
vangogh0318/MEP at 0407d35 (`mpu/layers.py`).

Choices:
    * KERPLE, MEP and T5 give one module to all layers, whose numbers every layer's file repeats; DAPE builds
      one for each layer. Where files of the first kind differ all the same (stages of a pipeline train copies
      of their own), each layer keeps its own.
    * Buffers that follow from the configuration (slopes, inverse frequencies) are compared, not loaded.
      A difference means that the configuration is not the one of these weights.
    * FIRE's threshold is the number stored in the weights, not the configuration's.
    * MEP's configurations do not say which kernels are averaged; the user must.
    * `nope_c_ffn` and `rope_dapev2` declare twice the channels that they are given and fail in that
      repository; weights in which that is mended (H channels) are read as dape_v2.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from lpe_eval.errors import CheckpointError, UnknownName
from lpe_eval.model.distance_kernels import alibi_slopes
from lpe_eval.model.foreign.neox_config import NeoxArgs
from lpe_eval.model.rotary import inverse_frequencies

BLOCK = {
    "input_layernorm": "attention_norm",
    "attention.query_key_value": "query_key_value",
    "attention.dense": "attention_out",
    "post_attention_layernorm": "mlp_norm",
}
"""Modules of a block, without the MLP's, which has an older and a newer pair of names."""

MLP_NAMES = (("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"), ("mlp.linear1", "mlp.linear2"))

_KERPLE = {"bias_p": "bias_p", "bias_a": "bias_a"}
_POWER = {**_KERPLE, "wei_p": "wei_p", "wei_a": "wei_a"}
_FIRE = {
    "c": "c",
    "L_multiplier": "multiplier",
    "mlp.0.weight": "first.weight",
    "mlp.0.bias": "first.bias",
    "mlp.2.weight": "second.weight",
    "mlp.2.bias": "second.bias",
}
_CORRECTION = {
    "mlp2.0.weight": "first.weight",
    "mlp2.0.bias": "first.bias",
    "mlp2.2.weight": "second.weight",
    "mlp2.2.bias": "second.bias",
}


class Situation(NamedTuple):
    """What an encoding is built from."""

    args: NeoxArgs
    stored: Mapping[str, Tensor]
    """The encoding's own tensors in the first block, by their name inside its module."""
    kernels: list[Any] | None
    """MEP's, from the user."""
    where: str
    """The configuration, for messages."""


class Positions(NamedTuple):
    """One value of `pos_emb`.

    Attributes:
        module: prefix of its tensors in a block; empty if it has none.
        spec: the encoding it is here.
        names: its parameters and ours.
        constants: its buffers, by their key in the attention, and the values they may have; none if it is
            none for these arguments.
        shared: whether all layers hold one module.
        spare: whether parameters may be there that the encoding does not use.
    """

    module: str
    spec: Callable[[Situation], dict[str, Any]]
    names: Mapping[str, str] = {}
    constants: Mapping[str, Callable[[NeoxArgs], list[Tensor]]] = {}
    shared: bool = False
    spare: bool = False


def positions_of(pos_emb: str, where: str) -> Positions:
    """The entry for a value of `pos_emb`.

    Raises:
        UnknownName: there is none.
    """
    if pos_emb in _KNOWN:
        return _KNOWN[pos_emb]
    for start in ("kerple_log", "kerple_power", "snope_norm", "snope_kerplelog"):
        if pos_emb.startswith(start):
            return _KNOWN[start]
    raise UnknownName(f"position encoding (pos_emb in {where})", pos_emb, _KNOWN)


def _plain(name: str, **options: Any) -> Callable[[Situation], dict[str, Any]]:
    return lambda situation: {"name": name, **options}


def _rope(situation: Situation) -> dict[str, Any]:
    args = situation.args
    return {"name": "rope", "theta": args.rotary_emb_base, "fraction": args.rotary_pct}


def _learned(situation: Situation) -> dict[str, Any]:
    args, offset = situation.args, situation.args.opt_pos_emb_offset
    if args.max_position_embeddings is None or args.max_position_embeddings <= offset:
        raise CheckpointError(f"{situation.where} gives learned positions no max_position_embeddings")
    return {"name": "learned", "length": args.max_position_embeddings - offset, "offset": offset}


def _t5(situation: Situation) -> dict[str, Any]:
    args = situation.args
    return {"name": "t5", "buckets": args.rpe_num_buckets, "max_distance": args.rpe_max_distance}


def _power(situation: Situation) -> dict[str, Any]:
    if situation.args.pos_emb.endswith("original"):
        return {"name": "kerple_power", "form": "original"}
    bias, weight = situation.args.pos_emb.split("_")[-2:]
    if {bias, weight} - {"", "ap"} or not bias + weight:
        raise UnknownName(
            f"position encoding (pos_emb in {situation.where})",
            situation.args.pos_emb,
            ["kerple_power_ap_", "kerple_power__ap", "kerple_power_ap_ap", "kerple_power_original"],
        )
    form = "bias_and_weight" if bias and weight else "bias" if bias else "weight"
    return {"name": "kerple_power", "form": form}


def _fire(activation: str) -> Callable[[Situation], dict[str, Any]]:
    def spec(situation: Situation) -> dict[str, Any]:
        if "init_L" not in situation.stored:
            raise CheckpointError(f"the weights beside {situation.where} hold no init_L, FIRE's threshold")
        threshold = float(situation.stored["init_L"])
        return {"name": "fire", "hidden": _width(situation), "activation": activation, "threshold": threshold}

    return spec


def _dape(inner: Callable[[Situation], dict[str, Any]], version: int = 1) -> Callable[[Situation], dict[str, Any]]:
    def spec(situation: Situation) -> dict[str, Any]:
        outer: dict[str, Any] = {"name": "dape", "hidden": _width(situation)}
        if version == 2:
            outer = {**outer, "name": "dape_v2", "kernel": situation.args.dapev2_kernel}
        return {**outer, "base": inner(situation)}

    return spec


def _mep(situation: Situation) -> dict[str, Any]:
    if situation.kernels is None:
        raise CheckpointError(
            f"{situation.where} has pos_emb {situation.args.pos_emb}, and MEP's files do not say which kernels are "
            "averaged; say it as neox:FOLDER?kernels=[exp,exp_half,gaussian] "
            "or, for snope_kerplelog as published, [gaussian,exp,t5,kerple_log]"
        )
    learned = {"kerple_log", "t5"} if situation.args.pos_emb.startswith("snope_kerplelog") else set()
    asked = _flat(situation.kernels) & {"kerple_log", "t5"}
    if asked - learned:
        raise CheckpointError(
            f"{situation.where}: pos_emb {situation.args.pos_emb} has no parameters for the kernel {min(asked)}"
        )
    buckets = {"t5_buckets": situation.args.rpe_num_buckets, "t5_max_distance": situation.args.rpe_max_distance}
    return {"name": "mep", "kernels": situation.kernels, **buckets}


def _flat(kernels: list[Any]) -> set[str]:
    return {name for each in kernels for name in (_flat(each) if isinstance(each, list) else {str(each)})}


def _width(situation: Situation) -> int:
    if situation.args.mlp_width is None:
        raise CheckpointError(f"{situation.where} has pos_emb {situation.args.pos_emb} and no mlp_width")
    return situation.args.mlp_width


def _cope(situation: Situation) -> dict[str, Any]:
    stored = situation.stored.get("pos_emb")
    return {"name": "cope", "npos_max": 64 if stored is None else stored.shape[-1]}


def _slopes(args: NeoxArgs) -> list[Tensor]:
    return [alibi_slopes(args.num_attention_heads)]


def _original_slopes(args: NeoxArgs) -> list[Tensor]:
    # Every forward pass of the original form clamps its slopes in place; the other forms train a parameter.
    slopes = alibi_slopes(args.num_attention_heads)
    return [slopes, slopes.clamp(min=0.01)] if args.pos_emb.endswith("original") else []


def _rope_frequencies(args: NeoxArgs) -> list[Tensor]:
    turned = int(args.hidden_size // args.num_attention_heads * args.rotary_pct)
    return [inverse_frequencies(turned, args.rotary_emb_base)]


def sinusoid_frequencies(args: NeoxArgs) -> list[Tensor]:
    """The frequencies that a sinusoid of the model's width has."""
    return [inverse_frequencies(args.hidden_size, 10000.0)]


def _inner(names: Mapping[str, str]) -> dict[str, str]:
    return {theirs: f"inner.{ours}" for theirs, ours in names.items()}


_TURNED = {"rotary_emb.inv_freq": _rope_frequencies}
_KERPLE_LOG = _plain("kerple_log")
_MEP_LEARNED = {
    "bias_p": "learned.kerple_log.bias_p",
    "bias_a": "learned.kerple_log.bias_a",
    "weight": "learned.t5.weight",
}
_DAPE_KERPLE = {**_CORRECTION, **_inner(_KERPLE)}
_DAPE_FIRE = {**_CORRECTION, **_inner(_FIRE)}
_XL = {name: name for name in ("r_w_bias", "r_r_bias", "r_net.weight")}

_KNOWN: dict[str, Positions] = {
    "none": Positions("", _plain("none")),
    "learned": Positions("", _learned),
    "sinusoidal": Positions("", _plain("sinusoidal")),
    "rotary": Positions("rotary_emb", _rope, {}, _TURNED),
    "alibi": Positions("alibi_embed", _plain("alibi"), {}, {"alibi_embed.slopes": _slopes}),
    "rpe": Positions("rpe", _t5, {"weight": "weight"}, shared=True),
    "kerple_log": Positions("rpe", _KERPLE_LOG, _KERPLE, shared=True),
    "kerple_power": Positions("rpe", _power, _POWER, {"rpe.bias_a": _original_slopes}, shared=True),
    "snope_norm": Positions("rpe", _mep, {}, {"rpe.slopes": _slopes}, shared=True),
    "snope_kerplelog": Positions("rpe", _mep, _MEP_LEARNED, {"rpe.slopes": _slopes}, shared=True, spare=True),
    "kerple": Positions("kerple", _KERPLE_LOG, _KERPLE),
    "fire": Positions("fire", _fire("relu"), _FIRE),
    "cope": Positions("cope", _cope, {"pos_emb": "pos_emb"}),
    "xl_bias": Positions("xl_bias", _plain("transformer_xl"), _XL, {"xl_bias.pos_emb.inv_freq": sinusoid_frequencies}),
    "alibi_c": Positions("alibi_c_embed", _dape(_plain("alibi")), _CORRECTION, {"alibi_c_embed.slopes": _slopes}),
    "kerple_c": Positions("kerple_c", _dape(_KERPLE_LOG), _DAPE_KERPLE),
    "fire_c": Positions("fire_c", _dape(_fire("leaky_relu")), _DAPE_FIRE),
    "nope_c": Positions("nope_c", _dape(_plain("none")), _CORRECTION),
    "rope_dapev1": Positions("dapev1", _dape(_rope), _CORRECTION, _TURNED),
    "alibi_dapev2": Positions("alibi_dapev2", _dape(_plain("alibi"), 2), _CORRECTION, {"alibi_dapev2.slopes": _slopes}),
    "kerple_dapev2": Positions("kerple_dapev2", _dape(_KERPLE_LOG, 2), _DAPE_KERPLE),
    "fire_dapev2": Positions("fire_dapev2", _dape(_fire("leaky_relu"), 2), _DAPE_FIRE),
    "nope_c_ffn": Positions("nope_c_ffn", _dape(_plain("none"), 2), _CORRECTION),
    "rope_dapev2": Positions("dapev2", _dape(_rope, 2), _CORRECTION, _TURNED),
}
"""By `pos_emb`; kerple_log, kerple_power and snope_* stand for all names that begin so."""
