"""From the layers and keys of a GPT-NeoX checkpoint to the reference transformer and its names.

Source: `megatron/model/gpt2_model.py` and `transformer.py` of chijames/KERPLE at 25be3d7. Layer 0 of the
pipeline is the embedding, 1 a change of axes, 2 to L + 1 the blocks, L + 2 a change of axes, L + 3 the final
norm, and L + 4 the head where it is not tied. `checkpoints/gpt_neox.py` says what was chosen.
"""

from itertools import chain
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from lpe_eval.errors import CheckpointError
from lpe_eval.model.foreign.neox_config import NeoxConfig, activation_of
from lpe_eval.model.foreign.neox_files import Weights
from lpe_eval.model.foreign.neox_names import BLOCK, MLP_NAMES, Positions, Situation, positions_of, sinusoid_frequencies
from lpe_eval.model.transformer import Transformer
from lpe_eval.model.transformer_model import fill
from lpe_eval.spec.encoding_spec import EncodingSpec
from lpe_eval.spec.model_spec import ModelSpec


class NeoxMapping:
    """Moves weights out of the foreign layers, under our names; what is left over at the end is an error.

    Args:
        config: what the model is.
        weights: its weights, by layer of the pipeline.
        symbols: how many rows of the embedding to keep.
        kernels: those of MEP, from the user.
        folder: where the weights come from, for messages.

    Attributes:
        mapped: each foreign key, and what became of it.

    Raises:
        CheckpointError: the layers are not those of the configuration.
        UnknownName: nothing here is the configured position encoding.
    """

    def __init__(
        self, config: NeoxConfig, weights: Weights, symbols: int, kernels: list[Any] | None, folder: Path
    ) -> None:
        self.args, self.where, self.folder = config.args, config.where, folder
        self.symbols, self.kernels = symbols, kernels
        self.layers = {number: dict(found) for number, found in weights.layers.items()}
        self.mapped: dict[str, str] = {}
        self._ours: dict[str, Tensor] = {}
        self._foreign: dict[str, str] = {}
        self._norm_at = self.args.num_layers + 3
        self._head_at = self._norm_at + 1 if self.args.no_weight_tying else None
        self._blocks = range(2, self.args.num_layers + 2)
        self._require_layers()
        self._compare_arguments(weights)
        self._rows = len(self._peek(0, "word_embeddings.weight"))
        self._mlp = next((names for names in MLP_NAMES if f"{names[0]}.weight" in self.layers[2]), MLP_NAMES[0])
        self._positions = positions_of(self.args.pos_emb, self.where)
        split = self.args.model_parallel_size > 1
        if split and self._positions.module not in ("", "rpe", "alibi_embed", "rotary_emb"):
            raise CheckpointError(f"{self.where}: pos_emb {self.args.pos_emb} cannot be split over several ranks")

    def spec(self) -> ModelSpec:
        """The model's shape, from the configuration and, for the MLP's width, the weights."""
        args = self.args
        fields = {
            "encoding": EncodingSpec.model_validate(self._encoding(self._positions)),
            "vocab_size": self.symbols,
            "width": args.hidden_size,
            "layers": args.num_layers,
            "heads": args.num_attention_heads,
            "mlp_width": len(self._peek(2, f"{self._mlp[0]}.weight")),
            "train_length": args.seq_length,
            "activation": activation_of(args),
            "tied_embeddings": not args.no_weight_tying,
            "norm_eps": args.layernorm_epsilon,
            "parallel_residual": args.gpt_j_residual,
        }
        try:
            return ModelSpec.model_validate(fields)
        except ValidationError as error:
            raise CheckpointError(f"{self.where}: {error.errors()[0]['msg']}") from error

    def fill(self, model: Transformer) -> None:
        """Copies every weight into `model`."""
        self._take(0, "word_embeddings.weight", "embedding.weight", rows=self.symbols)
        self._take_embedded_positions(model)
        for number, at in enumerate(self._blocks):
            self._take_block(at, f"layers.{number}", self.args.gpt_j_residual and self.args.gpt_j_tied)
        self._take_positions(model, self._positions)
        for part in ("weight", "bias"):
            self._take(self._norm_at, f"norm.{part}", f"final_norm.{part}", optional=not self.args.use_bias_in_norms)
        if self._head_at is not None:
            self._take(self._head_at, "final_linear.weight", "head.weight", rows=self.symbols)
        left = [self._told(at, key) for at, found in self.layers.items() for key in found]
        if left:
            raise CheckpointError(
                f"{left[0]} is none of a model with pos_emb {self.args.pos_emb}, {self.args.num_layers} layers and "
                f"{'an untied' if self.args.no_weight_tying else 'a tied'} head, as {self.where} describes it"
            )
        fill(model, self._ours, self.folder, self._foreign)

    def _require_layers(self) -> None:
        # Lazily, since a configuration may ask for any number of blocks.
        ends = (self._norm_at,) if self._head_at is None else (self._norm_at, self._head_at)
        missing = next((at for at in chain([0], self._blocks, ends) if at not in self.layers), None)
        extra = sorted(at for at in self.layers if at != 0 and at not in self._blocks and at not in ends)
        if missing is not None or extra:
            fault = f"has no layer {missing}" if missing is not None else f"holds a layer {extra[0]}"
            tied = "an untied" if self.args.no_weight_tying else "a tied"
            raise CheckpointError(
                f"{self.folder} {fault}, but {self.where} says {self.args.num_layers} blocks "
                f"(layers 2 to {self.args.num_layers + 1}) and {tied} head"
            )

    def _compare_arguments(self, weights: Weights) -> None:
        for key in ("num_layers", "hidden_size", "num_attention_heads", "max_position_embeddings"):
            saved, said = weights.arguments.get(key), getattr(self.args, key)
            if saved is not None and said is not None and saved != said:
                raise CheckpointError(f"{self.where} has {key} {said}, but the weights were saved with {saved}")

    def _take_block(self, at: int, ours: str, tied_norms: bool) -> None:
        args = self.args
        linear = {theirs: name for theirs, name in BLOCK.items() if "layernorm" not in theirs}
        linear = {**linear, self._mlp[0]: "mlp_in", self._mlp[1]: "mlp_out"}
        for theirs, name in BLOCK.items():
            if "layernorm" in theirs:
                # With gpt_j_tied one norm feeds both branches; the other is stored and never used.
                source = "input_layernorm" if tied_norms else theirs
                self._take(at, f"{source}.weight", f"{ours}.{name}.weight", keep=tied_norms)
                self._take(
                    at, f"{source}.bias", f"{ours}.{name}.bias", optional=not args.use_bias_in_norms, keep=tied_norms
                )
        if tied_norms:
            for key in [key for key in self.layers[at] if key.split(".")[0].endswith("_layernorm")]:
                del self.layers[at][key]
        for theirs, name in linear.items():
            biased = args.use_bias_in_mlp if theirs.startswith("mlp") else args.use_bias_in_attn_linear
            self._take(at, f"{theirs}.weight", f"{ours}.{name}.weight", by_head="query_key_value" in theirs)
            self._take(
                at, f"{theirs}.bias", f"{ours}.{name}.bias", by_head="query_key_value" in theirs, optional=not biased
            )

    def _take_embedded_positions(self, model: Transformer) -> None:
        if self.args.pos_emb == "learned":
            self._take(0, "position_embeddings.weight", "encodings.0.weight")
        elif self.args.pos_emb == "sinusoidal":
            self._compare(0, "position_embeddings.inv_freq", sinusoid_frequencies(self.args))

    def _encoding(self, positions: Positions) -> dict[str, Any]:
        prefix = f"attention.{positions.module}."
        stored = [
            {key.removeprefix(prefix): value for key, value in self.layers[at].items() if key.startswith(prefix)}
            for at in self._blocks
        ]
        for at, other in zip(self._blocks, stored, strict=True):
            differing = sorted(stored[0].keys() ^ other.keys())
            if positions.module and differing:
                raise CheckpointError(f"{self._told(at, prefix + differing[0])} is in some blocks and not in others")
            threshold = other.get("init_L")
            if threshold is not None and float(threshold) != float(stored[0]["init_L"]):
                raise CheckpointError(f"{self._told(at, prefix + 'init_L')} is not that of the first block")
        spec = positions.spec(Situation(self.args, stored[0], self.kernels, self.where))
        if positions.names:
            alike = all(torch.equal(stored[0][key], other[key]) for other in stored for key in stored[0])
            spec["per_layer"] = not positions.shared or not alike
        return spec

    def _take_positions(self, model: Transformer, positions: Positions) -> None:
        prefix, unique = f"attention.{positions.module}.", list(model.encodings)
        for number, at in enumerate(self._blocks):
            for key, allowed in positions.constants.items():
                values = allowed(self.args)
                if values:
                    self._compare(at, f"attention.{key}", values)
            self.layers[at].pop(f"{prefix}init_L", None)
            place = next(index for index, each in enumerate(unique) if each is model.layer_encodings[number])
            parameters = dict(unique[place].named_parameters())
            for theirs, name in positions.names.items():
                if name in parameters:
                    self._take(at, prefix + theirs, f"encodings.{place}.{name}", parameters[name])
                elif positions.spare and self.layers[at].pop(prefix + theirs, None) is not None:
                    self.mapped[self._told(at, prefix + theirs)] = "(of a kernel that is not averaged)"

    def _compare(self, at: int, key: str, allowed: list[Tensor]) -> None:
        stored = self.layers[at].pop(key, None)
        if stored is None:
            return
        flat = stored.flatten().double()
        if not any(len(flat) == len(each) and torch.allclose(flat, each.double(), rtol=0.01) for each in allowed):
            raise CheckpointError(f"{self._told(at, key)} is not what follows from {self.where}; it is another model's")
        self.mapped[self._told(at, key)] = "(follows from the configuration)"

    def _take(
        self,
        at: int,
        key: str,
        ours: str,
        like: Tensor | None = None,
        *,
        rows: int | None = None,
        by_head: bool = False,
        optional: bool = False,
        keep: bool = False,
    ) -> None:
        """Moves one tensor.

        Args:
            at: its layer.
            key: its name there.
            ours: its name here.
            like: a tensor from whose shape it may differ by axes of length one.
            rows: how many rows to keep of a table over the padded vocabulary.
            by_head: whether its rows are grouped by head.
            optional: whether zeros stand for it where it is missing.
            keep: whether it is used again.
        """
        found = self.layers[at].get(key)
        if found is None and optional and key.endswith(".bias"):
            weight = self._ours[ours.removesuffix("bias") + "weight"]
            self._ours[ours] = torch.zeros(len(weight))
            return
        if found is None:
            raise CheckpointError(f"{self._told(at, key)} is missing; {self.where} describes a model that has it")
        if not keep:
            del self.layers[at][key]
        if rows is not None:
            if len(found) != self._rows:
                raise CheckpointError(
                    f"{self._told(at, key)} has {len(found)} rows, but the embedding has {self._rows} (padded) symbols"
                )
            found = found[:rows]
        if by_head:
            found = self._by_kind(found, at, key)
        if like is not None and [size for size in found.shape if size > 1] == [size for size in like.shape if size > 1]:
            found = found.reshape(like.shape)
        self._ours[ours], self._foreign[ours] = found, self._told(at, key)
        self.mapped[self._told(at, key)] = ours

    def _by_kind(self, found: Tensor, at: int, key: str) -> Tensor:
        heads, width = self.args.num_attention_heads, self.args.hidden_size
        if len(found) != 3 * width:
            raise CheckpointError(
                f"{self._told(at, key)} has {len(found)} rows, but hidden_size {width} in {self.where} makes "
                f"{3 * width}"
            )
        grouped = found.reshape(heads, 3, width // heads, *found.shape[1:])
        return grouped.transpose(0, 1).reshape(found.shape)

    def _peek(self, at: int, key: str) -> Tensor:
        if key not in self.layers[at]:
            raise CheckpointError(f"{self._told(at, key)} is missing; {self.where} describes a model that has it")
        return self.layers[at][key]

    def _told(self, at: int, key: str) -> str:
        return f"{key} of layer {at}"
