"""A model of `transformers` as a measurement wants it: hidden states of scored rows, and a head.

Choices:
    * How logits come from hidden states is found by trial, see `transformers_head`. Where whole logits are made, the
      attention column ends in `+full-logits`.
    * Before every forward pass the model is put back into the state it was opened in: dynamic NTK otherwise keeps the
      frequencies of the longest text it has seen.
    * Where a table of positions ends, a longer text raises `LengthError`. So does any failure of the model's own code
      beyond its training length. Only tables that a pass over text looks up count, not those of other towers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lpe_eval.errors import CheckpointError, LengthError
from lpe_eval.model.checkpoint import CHANGED, LoadOptions
from lpe_eval.model.foreign.module_facts import architecture_of, position_tensors_of
from lpe_eval.model.foreign.module_state import FreshState
from lpe_eval.model.foreign.module_trace import Trace, some_tokens, trace
from lpe_eval.model.foreign.transformers_calls import first_of, known_code, logits_of
from lpe_eval.model.foreign.transformers_config import observed_label
from lpe_eval.model.foreign.transformers_head import find_head, output_embedding
from lpe_eval.model.foreign.transformers_last_query import Turnings, read_last_query, turnings_of
from lpe_eval.model.foreign.transformers_remap import change_distances
from lpe_eval.model.language_model import LanguageModel, LastQuery, ModelFacts, PositionTensor
from lpe_eval.model.remap_options import Remapping
from lpe_eval.model.unchanged import Stamps, stamps
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.plain import first_line

_PROBED = 8
"""Tokens of the passes that find out what a model is."""


class TransformersModel(LanguageModel):
    """A model of `transformers` behind the language-model contract.

    Args:
        model: on its device, in evaluation mode.
        facts: `vocab_size` and `encoding` are filled in from what the model does.
        config: of its text decoder.
        recorded: what else a provenance says of it.
        where: what messages call it.
        options: device, where inputs go and logits come from, and dtype.

    Raises:
        CheckpointError: it cannot run on a short text.
    """

    def __init__(
        self,
        model: nn.Module,
        facts: ModelFacts,
        config: Mapping[str, Any],
        recorded: Mapping[str, Any],
        where: str,
        options: LoadOptions,
    ) -> None:
        self.model: Any = model
        self.device, self.dtype = options.device, options.dtype
        self._where, self._train_length, self._config = where, facts.train_length, config
        self._recorded = recorded
        self._state = FreshState(model)
        self._place: str | None = None
        self._stamps: Stamps = []
        known = _symbols(model, config)
        # A model that tells nobody is tried with the two tokens that each has.
        self._symbols = known or 2
        self._follows_length = config.get("model_type") == "mpt" and known_code(model)
        self._head, self.seen = self._probe()
        self._symbols = known or self._head.vocabulary
        self._longest = min([each.end for each in self.seen.tables] + _named_ends(self.seen), default=None)
        label = observed_label(facts.encoding, self.seen, known_code(model))
        self.facts = facts._replace(vocab_size=self._head.vocabulary, encoding=label)
        self._notes: list[str] = []
        self._turnings: Turnings | None = None

    def remap(self, remapping: Remapping) -> None:
        """Takes the model at other distances from now on.

        Raises:
            CheckpointError: that cannot be done exactly.
        """
        self._state.restore()
        layers = change_distances(self._head.model, remapping, self._symbols, self._where, self.device)
        stable = self.facts.prefix_stable and remapping.prefix_stable
        label = f"remap({self.facts.encoding}, {remapping.method})"
        self.facts = self.facts._replace(encoding=label, prefix_stable=stable)
        self._recorded = {**self._recorded, "remap": {**remapping.told(), "layers": layers.mapped}}
        self._notes += [layers.told()] if layers.told() else []

    def reads_from(self, place: str) -> None:
        """Says that parts of it are read from there in each pass, so that files that change are noticed."""
        self._place, self._stamps = place, stamps(place)

    def notes(self) -> Sequence[str]:
        return self._notes

    @property
    def attention(self) -> str:
        path = getattr(self.model.config, "_attn_implementation", None) or "eager"
        return f"hf-{path}+full-logits" if self._head.how == "whole" else f"hf-{path}"

    def least_bytes(self, length: int) -> int:
        heads = self._config.get("num_attention_heads")
        whole = self._head.how == "whole" and not self._head.model.keeps_rows
        pairs = heads if self.attention.startswith("hf-eager") and isinstance(heads, int) else 0
        return self.dtype.itemsize * length * ((self.facts.vocab_size if whole else 0) + pairs * length)

    def architecture(self) -> list[tuple[str, str]]:
        rows = architecture_of(self.model, self._config)
        idle = [name for name, each in _parts(self.model) if not any(one in self.seen.called for one in each.modules())]
        if idle:
            rows.append(("not used by text", ", ".join(idle)))
        return rows + [(name, _in_words(value)) for name, value in self._recorded.items()]

    def position_tensors(self) -> Iterator[PositionTensor]:
        return position_tensors_of(self.model, self.seen.called)

    def recorded(self) -> Mapping[str, Any]:
        return self._recorded

    @torch.inference_mode()
    def hidden(self, tokens: Int[Tensor, "b t"], rows: int, generator: torch.Generator) -> Float[Tensor, "b r e"]:
        length = tokens.shape[1]
        if self._longest is not None and length > self._longest:
            raise LengthError(
                f"its table of positions ends at {self._longest} tokens, so a text of {length} has no positions"
            )
        if int(tokens.max()) >= self._symbols:
            raise CheckpointError(
                f"{self._where}: the tokenizer gives the id {int(tokens.max())} and the model has {self._symbols} "
                "symbols; name the model's own tokenizer with --tokenizer"
            )
        self._prepare(length)
        try:
            if self._head.body is not None:
                return first_of(self._head.body(tokens))[:, -rows:].to(self.device)
            return logits_of(self._head.model(tokens, rows), tokens, self._where)[:, -rows:].to(self.device)
        except (RuntimeError, IndexError, ValueError) as error:
            if self._train_length is None or length <= self._train_length or out_of_memory(error):
                raise
            raise LengthError(
                f"transformers cannot run it on {length} tokens, its training length is {self._train_length}: "
                f"{first_line(error)}"
            ) from error

    @torch.inference_mode()
    def last_query(
        self, tokens: Int[Tensor, "1 t"], generator: torch.Generator, take: Callable[[LastQuery], None]
    ) -> None:
        if self._turnings is None:
            self._state.restore()
            embeds = bool(self.seen.tables)
            self._turnings = turnings_of(self._head.model, self._symbols, embeds, self._where, self.device)
        module = self._head.model.module
        read_last_query(module, self._turnings, lambda: self.hidden(tokens, 1, generator), take, self._where)

    @torch.inference_mode()
    def logits(self, hidden: Float[Tensor, "n e"]) -> Float[Tensor, "n v"]:
        return self._head.logits(hidden).to(hidden.device)

    def _prepare(self, length: int) -> None:
        if self._place is not None and stamps(self._place) != self._stamps:
            raise CheckpointError(CHANGED.format(self._place))
        self._state.restore()
        if self._follows_length:
            self.model.config.max_seq_len = max(self._train_length or 0, length)

    @torch.inference_mode()
    def _probe(self) -> Any:
        """How logits are made, and what a pass shows."""
        padding = self._config.get("pad_token_id")
        drawn = some_tokens(self._symbols, _PROBED, padding if isinstance(padding, int) else None)
        tokens = torch.tensor([drawn], device=self.device)
        self._prepare(_PROBED)
        try:
            head = find_head(self.model, _bodies(self.model), tokens, self._where)
            self._state.restore()
            return head, trace(self.model, partial(head.model, tokens), _PROBED)
        except CheckpointError:
            raise
        except Exception as error:
            # Code that comes with a checkpoint may raise anything.
            if out_of_memory(error):
                raise
            raise CheckpointError(f"{self._where} cannot run on {_PROBED} tokens: {first_line(error)}") from error


def text_decoder(model: Any) -> nn.Module | None:
    """The language model inside one that does not run without an image, if it has a head of its own."""
    for _, each in _parts(model):
        if each is not model and output_embedding(each) is not None:
            return each
    return None


def _bodies(model: Any) -> list[nn.Module]:
    """Modules that may give the hidden states of the head, the likeliest first."""
    base = getattr(model, "base_model", None)
    try:
        decoder = model.get_decoder()
    except (NotImplementedError, AttributeError):
        decoder = None
    # OPT's own forward pass skips its base model and calls the decoder in it; Llama 4 names another base than it has.
    found = (base, getattr(base, "decoder", None), decoder, getattr(model, "model", None))
    unique = dict.fromkeys(each for each in found if isinstance(each, nn.Module) and each is not model)
    return list(unique)


def _symbols(model: Any, config: Mapping[str, Any]) -> int | None:
    """How many tokens it can be given; None where neither it nor its config says."""
    try:
        return model.get_input_embeddings().weight.shape[0]
    except (NotImplementedError, AttributeError):
        found = config.get("vocab_size")
        return found if isinstance(found, int) else None


def _named_ends(seen: Trace) -> list[int]:
    """Where tables end that are looked up in other ways than an embedding, and are called like those of GPT-J."""
    tables = (getattr(module, "embed_positions", None) for module in seen.called)
    return [each.shape[0] for each in tables if isinstance(each, Tensor)]


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Its parts near the root, those of its body too."""
    for name, each in model.named_children():
        inner = [(f"{name}.{one}", part) for one, part in each.named_children()]
        yield from inner if name == getattr(model, "base_model_prefix", "") and inner else [(name, each)]


def _in_words(value: Any) -> str:
    return ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, Mapping) else str(value)
