"""fairseq language models, of which ALiBi's eight for WikiText-103 are the known ones.

Source: fairseq in ofirpress/attention_with_linear_biases at 4b92f28. An address is a `.pt` file, or a folder with
one and its `dict.txt`; it may end in settings:

    ?dict=data-bin/wikitext-103/dict.txt    where the dictionary is, if not beside the weights
    ?encoding=sinusoidal                    alibi (if nothing is said), sinusoidal, learned or none

Deviations and choices:
    * A file does not say which position encoding it was trained with: ALiBi's authors replaced sinusoids in
      the code and left flags and buffers as they were. ALiBi is assumed; for a model of plain fairseq say
      which it is. A file with a table of learned positions is refused until it is said.
    * ALiBi is computed as -slope * (i - j); fairseq adds slope * j, which is the same after the softmax.
    * A file is unpickled with tensors, plain containers, numbers and `argparse.Namespace` allowed, and
      nothing else.
    * Weights that are tied are stored several times; the copies must be equal.
"""

import hashlib
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from lpe_eval.errors import CheckpointError, LpeEvalError, UnknownName
from lpe_eval.model.checkpoint import CheckpointFormat, LoadOptions, Peek
from lpe_eval.model.foreign.fairseq_args import FairseqArgs, read_args
from lpe_eval.model.foreign.pickles import load_plain, numbers, texts_in
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.model.needed_memory import refuse_what_does_not_fit
from lpe_eval.model.transformer import Transformer
from lpe_eval.model.transformer_model import TransformerModel, fill
from lpe_eval.model.weight_files import stored_types
from lpe_eval.reference import split_settings
from lpe_eval.spec.encoding_spec import EncodingSpec
from lpe_eval.spec.model_spec import AdaptiveSpec, CheckpointSpec, ModelSpec

_ENCODINGS = ("alibi", "sinusoidal", "learned", "none")
_SPECIAL_WORDS = 4
_BUFFER_NAMES = ("_float_tensor", "version")
_LINEAR = {"self_attn.out_proj": "attention_out", "fc1": "mlp_in", "fc2": "mlp_out"}
_NORMS = {"self_attn_layer_norm": "attention_norm", "final_layer_norm": "mlp_norm"}


class Fairseq(CheckpointFormat):
    """See the module's docstring."""

    settings: ClassVar[tuple[str, ...]] = ("dict", "encoding")

    @classmethod
    def recognises(cls, path: Path) -> bool:
        if path.is_dir():
            return (path / "dict.txt").is_file() and any(_is_fairseq(file) for file in sorted(path.glob("*.pt")))
        return _is_fairseq(path)

    @classmethod
    def peek(cls, path: str | Path, options: LoadOptions) -> Peek:
        opened = _open(path)
        if opened.dictionary is None and options.tokenizer is None:
            raise CheckpointError(
                f"{opened.weights} has no dict.txt beside it, and without the dictionary of the training nobody knows "
                f"its words; put it there, or write fairseq:{opened.weights}?dict=PATH"
            )
        return Peek(opened.name, f"fairseq_dict:{opened.dictionary}", _digest(opened))

    @classmethod
    def stored_types(cls, path: str | Path) -> list[str]:
        return stored_types([_open(path).weights])

    @classmethod
    def load(cls, path: str | Path, options: LoadOptions) -> LanguageModel:
        opened = _open(path)
        state = load_plain(opened.weights, [Namespace, *numbers()])
        if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
            raise CheckpointError(f"{opened.weights} is no fairseq checkpoint: it has no `model`")
        args = read_args(state, opened.weights)
        mapping = _Mapping(opened, args, state["model"])
        tokenizer = options.tokenizer or f"fairseq_dict:{opened.dictionary}"
        spec = CheckpointSpec(name=opened.name, tokenizer=tokenizer, model=mapping.spec)
        refuse_what_does_not_fit(spec.model, opened.weights)
        try:
            model = Transformer(spec.model, options.attention)
        except LpeEvalError as error:
            raise CheckpointError(f"{opened.weights}: {error}") from error
        fill(model, mapping.ours, opened.weights, mapping.foreign)
        model.put(options.device, options.dtype)
        return TransformerModel(model.eval(), spec, _digest(opened), options, "fairseq", mapping.mapped)


class _Opened(NamedTuple):
    """A checkpoint found and not yet read."""

    name: str
    weights: Path
    dictionary: Path | None
    encoding: str | None


def _is_fairseq(file: Path) -> bool:
    if file.suffix != ".pt" or not file.is_file():
        return False
    texts = texts_in(file)
    decoder = any(text.startswith("decoder.layers.") for text in texts)
    encoder = any(text.startswith("encoder.layers.") for text in texts)
    return decoder and not encoder and "model" in texts and bool({"args", "cfg"} & texts)


def _open(path: str | Path) -> _Opened:
    address, settings = split_settings(str(path))
    for key in settings:
        if key not in Fairseq.settings:
            raise UnknownName("setting of a fairseq checkpoint", key, Fairseq.settings)
    encoding = settings.get("encoding")
    if encoding is not None and encoding not in _ENCODINGS:
        raise UnknownName("position encoding of fairseq", str(encoding), _ENCODINGS)
    place, weights = Path(address), Path(address)
    if place.is_dir():
        found = [file for file in sorted(place.glob("*.pt")) if _is_fairseq(file)]
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "no .pt file of a fairseq language model"
            raise CheckpointError(f"{place} holds {names}; name the one file")
        weights = found[0]
    elif not place.is_file():
        raise CheckpointError(f"there is no checkpoint at {place}")
    dictionary = Path(str(settings["dict"])) if "dict" in settings else weights.parent / "dict.txt"
    if not dictionary.is_file():
        if "dict" in settings:
            raise CheckpointError(f"the dictionary {dictionary} is not there")
        dictionary = None
    name = place.resolve().name if place.is_dir() else place.stem
    return _Opened(name, weights, dictionary, encoding)


def _digest(opened: _Opened) -> str:
    summed = hashlib.sha256(repr(opened.encoding).encode())
    for file in (opened.weights, *([] if opened.dictionary is None else [opened.dictionary])):
        with file.open("rb") as content:
            summed.update(hashlib.file_digest(content, "sha256").digest())
    return summed.hexdigest()


class _Mapping:
    """Moves weights out of a fairseq state dict, under our names; what is left over is an error."""

    def __init__(self, opened: _Opened, args: FairseqArgs, state: Mapping[str, Any]) -> None:
        self.args, self.path = args, opened.weights
        self.left = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        strange = sorted(state.keys() - self.left.keys())
        if strange:
            raise CheckpointError(f"{self.path}: {strange[0]} is no tensor")
        self.ours: dict[str, Tensor] = {}
        self.foreign: dict[str, str] = {}
        self.mapped: dict[str, str] = {}
        version = self.left.get("decoder.version")
        self.final_norm = args.final_norm and (version is None or float(version.flatten()[0]) > 2)
        for key in [key for key in self.left if key.rpartition(".")[2] in _BUFFER_NAMES]:
            del self.left[key]
        words = self._take_vocabulary(args.adaptive)
        self._check_dictionary(opened.dictionary, words)
        self.spec = self._spec(self._take_positions(opened.encoding), words)
        for number in range(args.decoder_layers):
            self._take_layer(f"decoder.layers.{number}", f"layers.{number}")
        if self.final_norm:
            self._take_linear("decoder.layer_norm", "final_norm")
        if self.left:
            raise CheckpointError(f"{self.path} holds {min(self.left)}, which a model with its flags does not have")

    def _spec(self, encoding: dict[str, Any], words: int) -> ModelSpec:
        args = self.args
        try:
            return ModelSpec(
                encoding=EncodingSpec.model_validate(encoding),
                vocab_size=words,
                width=args.decoder_embed_dim,
                layers=args.decoder_layers,
                heads=args.decoder_attention_heads,
                mlp_width=args.decoder_ffn_embed_dim,
                train_length=args.tokens_per_sample,
                activation=args.activation,
                tied_embeddings=args.adaptive is not None or args.share_decoder_input_output_embed,
                final_norm=self.final_norm,
                embedding_scale=1.0 if args.no_scale_embedding else args.decoder_embed_dim**0.5,
                adaptive=args.adaptive,
            )
        except ValidationError as error:
            raise CheckpointError(f"{self.path}: {error.errors()[0]['msg']}") from error

    def _take_vocabulary(self, bands: AdaptiveSpec | None) -> int:
        if bands is None:
            words = len(self._take("decoder.embed_tokens.weight", "embedding.weight"))
            if not self.args.share_decoder_input_output_embed:
                self._take("decoder.output_projection.weight", "head.weight")
            elif "decoder.output_projection.weight" in self.left:
                self._require_copy("decoder.output_projection.weight", "embedding.weight")
            return words
        words, softmax = 0, "decoder.adaptive_softmax"
        for band in range(len(bands.cutoffs) + 1):
            words += len(
                self._take(f"decoder.embed_tokens.embeddings.{band}.0.weight", f"embedding.tables.{band}.weight")
            )
            self._take(f"decoder.embed_tokens.embeddings.{band}.1.weight", f"embedding.projections.{band}.weight")
        if bands.tied_tables:
            self._require_copy(f"{softmax}.head.word_proj.weight", "embedding.tables.0.weight")
            self._take(f"{softmax}.head.class_proj.weight", "head.classes.weight")
        else:
            whole = self._take(f"{softmax}.head.weight", "head.tables.0.weight")
            self.ours["head.tables.0.weight"] = whole[: bands.cutoffs[0]]
            self.ours["head.classes.weight"] = whole[bands.cutoffs[0] :]
        for band in range(1, len(bands.cutoffs) + 1):
            tail = f"{softmax}.tail.{band - 1}"
            if bands.tied_projections:
                self._require_copy(f"{tail}.0.weight", f"embedding.projections.{band}.weight")
            else:
                ours = f"head.projections.{band - 1}.weight"
                self.ours[ours] = self._take(f"{tail}.0.weight", ours).T
            if bands.tied_tables:
                self._require_copy(f"{tail}.2.weight", f"embedding.tables.{band}.weight")
            else:
                self._take(f"{tail}.2.weight", f"head.tables.{band}.weight")
        return words

    def _check_dictionary(self, dictionary: Path | None, words: int) -> None:
        if dictionary is None:
            return
        with dictionary.open("rb") as lines:
            listed = _SPECIAL_WORDS + sum(bool(line.strip()) for line in lines)
        if listed != words:
            raise CheckpointError(
                f"{dictionary} has {listed} words with the four special ones, but {self.path} has {words}"
            )

    def _take_positions(self, asked: str | None) -> dict[str, Any]:
        table = "decoder.embed_positions.weight"
        if table not in self.left:
            if asked == "learned":
                raise CheckpointError(f"{self.path} has no {table}, so its positions were not learned")
            return {"name": "sinusoidal", "form": "fairseq"} if asked == "sinusoidal" else {"name": asked or "alibi"}
        if asked in (None, "sinusoidal"):
            raise CheckpointError(
                f"{self.path} has a table of learned positions, which ALiBi's code stores and never reads; "
                f"write fairseq:{self.path}?encoding=learned, or ?encoding=alibi"
            )
        if asked != "learned":
            self.mapped[table] = "(never read)"
            del self.left[table]
            return {"name": asked}
        # fairseq counts positions from padding_idx + 1, which is 2.
        rows = len(self._take(table, "encodings.0.weight"))
        return {"name": "learned", "length": max(1, rows - 2), "offset": 2}

    def _take_layer(self, theirs: str, ours: str) -> None:
        for part in ("weight", "bias"):
            keys = [f"{theirs}.self_attn.{name}_proj.{part}" for name in "qkv"]
            parts = [self._take(key, f"{ours}.query_key_value.{part}") for key in keys]
            if len({each.shape for each in parts}) > 1:
                raise CheckpointError(f"{self.path}: {keys[0]} and those for k and v have different shapes")
            self.ours[f"{ours}.query_key_value.{part}"] = torch.cat(parts)
        for name, name_here in {**_LINEAR, **_NORMS}.items():
            self._take_linear(f"{theirs}.{name}", f"{ours}.{name_here}")

    def _take_linear(self, theirs: str, ours: str) -> None:
        for part in ("weight", "bias"):
            self._take(f"{theirs}.{part}", f"{ours}.{part}")

    def _take(self, key: str, ours: str) -> Tensor:
        if key not in self.left:
            raise CheckpointError(f"{self.path} has no {key}, which a model with its flags has")
        found = self.left.pop(key)
        self.ours[ours], self.foreign[ours] = found, key
        self.mapped[key] = ours
        return found

    def _require_copy(self, key: str, ours: str) -> None:
        kept = self.ours[ours]
        found = self._take(key, ours)
        if found.shape != kept.shape or not torch.equal(found, kept):
            raise CheckpointError(f"{self.path}: {key} is not the weight that its flags tie it to ({ours})")
