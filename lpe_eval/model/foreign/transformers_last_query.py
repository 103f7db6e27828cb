"""What position adds to the logits of a text's last query, in each layer of a model of `transformers` with RoPE.

The queries and keys that a layer hands to its attention are turned already. Rotations compose, so keys are turned on to
where the query stands, which leaves content, with the frequencies that the model holds at that moment.

Choices:
    * How a layer turns is found by trial (`transformers_turning.py`). A layer that does not turn adds nothing.
    * A model whose attention does more than `transformers` registers (sinks, a bias of its own) is refused: its logits
      must be its own where its attention goes through the registered function.
    * Other distances (`--remap`) are read as they are taken. A soft cap is applied to content too, so that what is
      added is a difference of what goes into the softmax.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lpe_eval.errors import CheckpointError
from lpe_eval.model.foreign.module_trace import some_tokens
from lpe_eval.model.foreign.transformers_attention import LayerCall, Turning, registered_in, told_to
from lpe_eval.model.foreign.transformers_calls import Call
from lpe_eval.model.foreign.transformers_turning import PROBED, answers, apart_by, exact, turning_of, two_places
from lpe_eval.model.gpu import device_of_float64
from lpe_eval.model.language_model import LastQuery
from lpe_eval.model.last_query import decay
from lpe_eval.model.merged_ranges import repeated
from lpe_eval.model.products import products
from lpe_eval.model.remaps import mapped_distances
from lpe_eval.model.rotary import Rotation, turned_to

Turnings = Mapping[nn.Module, Turning | None]
"""How each layer turns, in order; None where it does not."""


@torch.inference_mode()
def turnings_of(call: Call, symbols: int, embeds: bool, where: str, device: torch.device) -> Turnings:
    """How the layers of a model turn their queries and keys.

    Args:
        call: the model, in evaluation mode.
        symbols: tokens that it knows.
        embeds: whether it looks positions up and adds them to the embeddings.
        where: what messages call it.
        device: where its inputs go.

    Raises:
        CheckpointError: what position adds cannot be told from the rest.
    """
    then = "what position adds to its logits cannot be told from the rest"
    in_embeddings = f"{where} adds its positions to the embeddings of its tokens, so {then}"
    if not call.takes_positions:
        why = "its code takes no position_ids, so how it turns its queries and keys cannot be tried"
        raise CheckpointError(in_embeddings if embeds else f"{where}: {why}")
    tokens = torch.tensor([some_tokens(symbols, PROBED, None)], device=device)
    own, pairs = answers(call, tokens, where), two_places(call, tokens)
    if not pairs:
        kind = type(call.module).__name__
        raise CheckpointError(
            f"{where}: the attention of {kind} does not go through the registration of transformers, so {then}"
        )
    with registered_in(call.module):
        apart = apart_by(answers(call, tokens, where), own)
    if not apart <= (1e-4 if exact(own) else 5e-2):
        raise CheckpointError(f"{where}: its attention does more than transformers registers, so {then}")
    try:
        found = {one.module: turning_of(one, two, call.module, where, then) for one, two in pairs}
    except CheckpointError as error:
        if embeds:
            raise CheckpointError(in_embeddings) from error
        raise
    if all(each is None for each in found.values()):
        raise CheckpointError(f"{where}: no layer turns its queries and keys by their position, so {then}")
    return found


def read_last_query(
    model: nn.Module,
    turnings: Turnings,
    run: Callable[[], object],
    take: Callable[[LastQuery], None],
    where: str,
) -> None:
    """Runs a pass over one text, and hands to `take` what the logits of its last query are made of.

    Args:
        model: whose attention is read.
        turnings: of its layers.
        run: the pass.
        take: told of each layer.
        where: what messages call it.
    """
    numbers = {module: number for number, module in enumerate(turnings)}

    def tell(call: LayerCall) -> None:
        take(_taken_apart(numbers[call.module], call, turnings[call.module], where))

    with registered_in(model), told_to(tell):
        run()


class _Row(NamedTuple):
    """The last query of a text, and how its logits are made."""

    query: Float[Tensor, "1 h 1 d"]
    scale: float
    cap: float | None
    seen: Bool[Tensor, " k"]

    def logits(self, keys: Float[Tensor, "1 g k d"]) -> Float[Tensor, "h s"]:
        """Of the keys that are seen."""
        some = repeated(keys[:, :, self.seen], self.query.shape[1]).to(self.query.dtype)
        found = products(self.query, some, self.scale)[0, :, 0]
        found = found if self.cap is None else self.cap * (found / self.cap).tanh()
        return found.to(device_of_float64(found.device)).double()


def _taken_apart(number: int, call: LayerCall, turning: Turning | None, where: str) -> LastQuery:
    keys, length = call.keys, call.keys.shape[2]
    at = torch.arange(length, device=keys.device)
    seen = _seen(call, length, where)
    query = call.queries[:, :, -1:].to(torch.promote_types(call.queries.dtype, torch.float32))
    factor = None if call.change is None else call.change.remapping.query_factor(at[-1:], length)
    row = _Row(query if factor is None else query * factor, call.scale, call.cap, seen)
    distance = (length - 1 - at)[seen]
    if turning is None:
        content = row.logits(keys)
        return LastQuery(number, distance, content, torch.zeros_like(content))
    rotation, here = turning.rotation(keys.device), torch.full_like(at, length - 1)
    exact_at = at.to(device_of_float64(at.device)).double()
    apart, there = exact_at[-1] - exact_at, keys
    if call.change is not None:
        apart = mapped_distances(call.change.remapping.distances, at[-1:], at)[0].to(exact_at.device)
        there = turned_to(keys, at, exact_at[-1] - apart, rotation)
    together = turned_to(keys, at, exact_at[-1].expand(length), rotation)
    content = row.logits(together)
    mean = together[:, :, seen].mean(dim=2, keepdim=True).expand_as(keys)
    of_mean_key = row.logits(turned_to(mean, here, exact_at[-1] - apart, rotation)) - row.logits(mean)
    return LastQuery(
        number,
        distance,
        content,
        row.logits(there) - content,
        of_mean_key=of_mean_key,
        decay=_decay(apart[seen.to(apart.device)], rotation, keys.shape[-1]),
    )


def _decay(apart: Float[Tensor, " k"], rotation: Rotation, width: int) -> Float[Tensor, " k"]:
    return decay(apart.cpu(), rotation._replace(inverse=rotation.inverse.cpu()), width)


def _seen(call: LayerCall, length: int, where: str) -> Bool[Tensor, " k"]:
    """Which keys the last query sees.

    Raises:
        CheckpointError: the mask holds a bias.
    """
    if call.mask is None:
        return torch.ones(length, dtype=torch.bool, device=call.keys.device)
    row = call.mask[0, 0, -1, :length]
    if row.dtype == torch.bool:
        return row
    seen = row > torch.finfo(row.dtype).min / 2
    if bool((row[seen] != 0).any()):
        raise CheckpointError(
            f"{where} adds a bias of its own to the logits of its attention, which is not read; only RoPE is"
        )
    return seen
