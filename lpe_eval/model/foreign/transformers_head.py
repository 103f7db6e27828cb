"""From hidden states to logits, some rows at a time, whatever a model does in between.

Choices:
    * `plain`: the output embedding alone, if a probe shows that it gives the model's own logits. The hidden states are
      enlarged on their way, inside the model too, until logits are as large as a trained model's: a soft cap bends
      only those.
    * `own`: the model's own forward pass, in which its body is replaced by the hidden states at hand, if a probe shows
      that rows give the same logits by themselves. So soft caps, scales and casts stay the model's.
    * `whole`: neither holds. Whole logits are made, of the scored rows only where the class can.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lpe_eval.model.foreign.transformers_calls import Call, first_of, logits_of, with_first


class Head(NamedTuple):
    """How logits are made.

    Attributes:
        how: see the module's docstring.
        body: gives the hidden states; None for `whole`.
        vocabulary: symbols scored.
    """

    how: Literal["plain", "own", "whole"]
    model: Call
    body: Call | None
    embedding: nn.Module | None
    template: Any
    """What the body returned in the probe."""
    vocabulary: int

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores [n, v] of hidden states [n, e]."""
        if self.how == "whole":
            return hidden
        return self._plain(hidden) if self.how == "plain" else self._own(hidden)

    def _plain(self, hidden: Tensor) -> Tensor:
        assert self.embedding is not None
        weight = next(self.embedding.parameters(), None)
        floating = weight is not None and weight.is_floating_point()
        # Some bodies keep their residual stream in float32 whatever the weights are.
        return self.embedding(hidden.to(weight.dtype) if weight is not None and floating else hidden)

    def _own(self, hidden: Tensor) -> Tensor:
        assert self.body is not None
        returned = with_first(self.template, hidden[None])
        tokens = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
        with _answering(self.body.module, returned):
            return logits_of(self.model(tokens), tokens, type(self.model.module).__name__)[0]


def find_head(model: nn.Module, bodies: list[nn.Module], tokens: Tensor, where: str) -> Head:
    """Tries which of the ways gives the model's own logits on a short text.

    Args:
        model: on its device, in evaluation mode.
        bodies: candidates, the likeliest first.
        tokens: [1, t].
        where: what messages call the model.

    Raises:
        CheckpointError: the model returns no logits.
    """
    call = Call(model)
    first = logits_of(call(tokens), tokens, where)
    whole = Head("whole", call, None, output_embedding(model), None, first.shape[-1])
    factor = 30 / max(first.float().std().item(), 1e-6)
    split: Head | None = None
    for module in bodies:
        seen: list[Any] = []

        def enlarge(_module: nn.Module, _inputs: Any, returned: Any, seen: list[Any] = seen) -> Any:
            seen[:] = [with_first(returned, first_of(returned) * factor)]
            return seen[0]

        handle = module.register_forward_hook(enlarge)
        try:
            wanted = logits_of(call(tokens), tokens, where).float()
        finally:
            handle.remove()
        if not seen or first_of(seen[0]).dim() != 3 or not _repeats(module, first_of(seen[0]) / factor, tokens):
            continue
        head = whole._replace(body=Call(module), template=seen[0])
        states = first_of(seen[0])[0]
        if _agrees(head._replace(how="plain"), states, wanted[0]):
            return head._replace(how="plain")
        if split is None and _agrees(head._replace(how="own"), states, wanted[0]):
            split = head._replace(how="own")
    return split or whole


def _agrees(head: Head, states: Tensor, wanted: Tensor) -> bool:
    """Whether rows by themselves give the logits [t, v] that the model gives all of them together."""
    if head.how == "plain" and getattr(head.embedding, "in_features", states.shape[-1]) != states.shape[-1]:
        return False
    if head.how == "plain" and head.embedding is None:
        return False
    try:
        parts = [head.logits(some) for some in (states[:3], states[3:])] if head.how == "own" else [head.logits(states)]
    except (RuntimeError, IndexError, ValueError, TypeError, KeyError, AttributeError):
        return False
    return _same(torch.cat(parts), wanted, head.model.module)


def _same(found: Tensor, wanted: Tensor, model: nn.Module) -> bool:
    """Whether two tensors are equal but for the rounding of the model's type."""
    exact = all(each.dtype in (torch.float32, torch.float64) for each in model.parameters())
    if found.shape != wanted.shape:
        return False
    # The parts of a model may lie on several devices.
    found, wanted = found.to(wanted.device).float(), wanted.float()
    return bool((found - wanted).abs().max() <= (1e-5 if exact else 2e-2) * wanted.std())


def _repeats(module: nn.Module, states: Tensor, tokens: Tensor) -> bool:
    """Whether the body, called by itself, gives the hidden states that it gives inside the model."""
    try:
        alone = first_of(Call(module)(tokens))
    except (RuntimeError, IndexError, ValueError, TypeError, KeyError, AttributeError):
        return False
    return isinstance(alone, Tensor) and _same(alone, states, module)


def output_embedding(model: Any) -> nn.Module | None:
    """The head that a model of `transformers` names; None where it names none."""
    try:
        found = model.get_output_embeddings()
    except (NotImplementedError, AttributeError):
        return None
    return found if isinstance(found, nn.Module) else None


@contextmanager
def _answering(module: nn.Module, returned: Any) -> Iterator[None]:
    """Within it, the module returns this instead of running."""
    missing = object()
    before = vars(module).get("forward", missing)
    module.forward = lambda *_arguments, **_keywords: returned
    try:
        yield
    finally:
        if before is missing:
            del module.forward
        else:
            module.forward = before
