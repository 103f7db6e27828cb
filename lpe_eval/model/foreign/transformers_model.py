"""A model of `transformers` as a measurement wants it: hidden states of scored rows, and a head.

Choices:
    * Hidden states and head are taken apart if a probe shows that the head, applied to (enlarged) hidden
      states, gives the model's own logits. Otherwise (softcaps, scaled logits) whole logits are made, of
      the scored rows only where the class can; the attention column then ends in `+full-logits`.
    * Rotary modules are put back before every forward pass into the state they were built in: dynamic
      NTK otherwise keeps the frequencies of the longest text it has seen.
    * Where a table of positions ends, a longer text raises `LengthError`. So does any failure of the
      model's own code beyond its training length.
"""

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lpe_eval.errors import CheckpointError, LengthError
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.foreign.module_facts import architecture_of, position_tensors_of
from lpe_eval.model.language_model import LanguageModel, ModelFacts, PositionTensor
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.plain import first_line


class FrozenRotary(NamedTuple):
    """A rotary module, and the state it was built in."""

    module: nn.Module
    buffers: dict[str, Tensor]
    numbers: dict[str, Any]

    @classmethod
    def of(cls, module: nn.Module) -> "FrozenRotary":
        """Remembers the state of `module`."""
        buffers = {name: tensor.clone() for name, tensor in module.named_buffers(recurse=False)}
        return cls(module, buffers, {key: each for key, each in vars(module).items() if isinstance(each, (int, float))})

    def restore(self) -> None:
        """Puts the state back."""
        for name, tensor in self.buffers.items():
            self.module.register_buffer(name, tensor.clone(), persistent=False)
        vars(self.module).update(self.numbers)


class TransformersModel(LanguageModel):
    """A model of `transformers` behind the language-model contract.

    Args:
        model: on its device, in evaluation mode.
        facts: `vocab_size` is filled in from what the model scores.
        rotary: modules with a state, restored before every forward pass.
        where: what messages call it.
        options: device and dtype.

    Raises:
        CheckpointError: it cannot run on a short text.
    """

    def __init__(
        self, model: nn.Module, facts: ModelFacts, rotary: list[FrozenRotary], where: str, options: LoadOptions
    ) -> None:
        self.model: Any = model
        self.device, self.dtype = options.device, options.dtype
        self._where, self._train_length, self._rotary = where, facts.train_length, rotary
        self._longest = _longest_input(model)
        self._symbols = self.model.get_input_embeddings().weight.shape[0]
        self._partial = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._head: nn.Module | None = self.model.get_output_embeddings()
        self._head_width = getattr(self._head, "in_features", None)
        # OPT's own forward pass skips its base model and calls the decoder in it.
        inner = getattr(self.model.base_model, "decoder", None)
        bodies = (self.model.base_model, inner)
        self._bodies = [each for each in bodies if isinstance(each, nn.Module) and each is not model]
        vocabulary, self._body = self._probe()
        self.facts = facts._replace(vocab_size=vocabulary)

    @property
    def attention(self) -> str:
        path = getattr(self.model.config, "_attn_implementation", None) or "eager"
        return f"hf-{path}" if self._body is not None else f"hf-{path}+full-logits"

    def least_bytes(self, length: int) -> int:
        config, item = self.model.config, self.dtype.itemsize
        heads = getattr(config, "num_attention_heads", None)
        whole = self._body is None and not self._partial
        pairs = heads if self.attention.startswith("hf-eager") and isinstance(heads, int) else 0
        return item * length * ((self.facts.vocab_size if whole else 0) + pairs * length)

    def architecture(self) -> list[tuple[str, str]]:
        return architecture_of(self.model)

    def position_tensors(self) -> Iterator[PositionTensor]:
        return position_tensors_of(self.model)

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
            if self._body is not None:
                return self._body(input_ids=tokens, use_cache=False)[0][:, -rows:]
            keep = {"logits_to_keep": rows} if self._partial else {}
            return self.model(input_ids=tokens, use_cache=False, **keep).logits[:, -rows:]
        except (RuntimeError, IndexError, ValueError) as error:
            if self._train_length is None or length <= self._train_length or out_of_memory(error):
                raise
            raise LengthError(
                f"transformers cannot run it on {length} tokens, its training length is {self._train_length}: "
                f"{first_line(error)}"
            ) from error

    @torch.inference_mode()
    def logits(self, hidden: Float[Tensor, "n e"]) -> Float[Tensor, "n v"]:
        return hidden if self._body is None or self._head is None else self._head(hidden)

    def _prepare(self, length: int) -> None:
        for frozen in self._rotary:
            frozen.restore()
        if getattr(self.model.config, "model_type", "") == "mpt":
            self.model.config.max_seq_len = max(self._train_length or 0, length)

    @torch.inference_mode()
    def _probe(self) -> tuple[int, nn.Module | None]:
        """The number of symbols scored, and the module whose hidden states the head turns into the logits.

        The hidden states are enlarged on their way, inside the model too, until logits are as large as a
        trained model's: a softcap bends only those.
        """
        tokens = (torch.arange(8, device=self.device) % self._symbols)[None]
        seen: list[Tensor] = []
        factor = 1.0

        def enlarge(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            seen[:] = [output[0] * factor]
            if isinstance(output, tuple):
                return (seen[0], *output[1:])
            output[next(iter(output.keys()))] = seen[0]
            return output

        self._prepare(tokens.shape[1])
        try:
            first = self.model(input_ids=tokens, use_cache=False).logits
            vocabulary = first.shape[-1]
            factor = 30 / max(first.float().std().item(), 1e-6)
            for body in self._bodies:
                seen.clear()
                handle = body.register_forward_hook(enlarge)
                try:
                    whole = self.model(input_ids=tokens, use_cache=False).logits.float()
                finally:
                    handle.remove()
                if seen and self._head is not None and self._agree(seen[0], whole):
                    return vocabulary, body
            return vocabulary, None
        except (RuntimeError, IndexError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{self._where} cannot run on 8 tokens: {first_line(error)}") from error

    def _agree(self, hidden: Tensor, whole: Tensor) -> bool:
        assert self._head is not None
        if self._head_width not in (None, hidden.shape[-1]):
            return False
        parts = self._head(hidden).float()
        tolerance = 1e-5 if self.dtype == torch.float32 else 2e-2
        return parts.shape == whole.shape and ((parts - whole).abs().max() <= tolerance * whole.std()).item() is True


def _longest_input(model: nn.Module) -> int | None:
    """Where the shortest table of positions ends; None if the model has none."""
    ends: list[int] = []
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and (last == "wpe" or "position" in last or "pos_emb" in last):
            skipped = getattr(module, "offset", 0 if module.padding_idx is None else module.padding_idx + 1)
            ends.append(module.num_embeddings - int(skipped))
        table = getattr(module, "embed_positions", None)
        if isinstance(table, Tensor):
            ends.append(table.shape[0])
    return min(ends, default=None)
