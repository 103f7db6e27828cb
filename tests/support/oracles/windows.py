"""Which keys a layer sees, which layers turn queries and keys, and layers of three families as whole attention."""

from typing import NamedTuple

from torch import Tensor

from tests.support.golden_cases import Case
from tests.support.oracles import temperature
from tests.support.oracles.pairs import Sees, attended, exact, heads_of, products, turned_products, within

WRONG = (
    *("window <= W", "own key hidden", "chunk as a window", "chunks from 1", "rules of two directions swapped"),
    *("schedule from layer 0", "no_rope_layers taken literally", "window on SmolLM 3's RoPE layers"),
    *("RoPE in Cohere's full layers", "RoPE in every layer", "other pairing", "norm left out", "norm in NoPE layers"),
    *("temperature in RoPE layers", "no temperature"),
)


class Family(NamedTuple):
    """How the layers of a family differ. The last layer of each group is special.

    Attributes:
        rope: which layers turn queries and keys: "all", "none", or "most", which are those that are not special.
        windowed: which layers have a window: "all", "most", or "special".
        every: how many layers are a group.
        reach: the window, or the chunk.
    """

    rope: str
    windowed: str
    every: int
    reach: int


FAMILIES = {
    "llama4": Family("most", "most", 4, 8192),
    "cohere2": Family("most", "most", 4, 4096),
    "gemma2": Family("all", "most", 2, 4096),
    "gemma3": Family("all", "most", 6, 4096),
    "gpt_oss": Family("all", "most", 2, 128),
    "mistral": Family("all", "all", 1, 4096),
    "olmo3": Family("all", "most", 4, 4096),
    "inkling": Family("none", "most", 6, 512),
}


def outputs(case: Case, slip: str = "") -> dict[str, Tensor]:
    if "visible" in case.outputs:
        length = case.fields["k_len"]
        visible = [[float(_sees(case, slip)(i, j)) for j in range(length)] for i in range(length)]
        found = {"visible": exact(visible), "keys_per_query": exact([sum(row) for row in visible])}
        return {name: found[name] for name in case.outputs}
    if "rope" in case.outputs:
        layers = [_layer(case, index, slip) for index in range(case.fields["layers"])]
        return {"rope": exact([rope for rope, _ in layers]), "window": exact([window for _, window in layers])}
    return _attention(case, slip)


def _sees(case: Case, slip: str) -> Sees:
    """Whether i sees j, which may be in the future."""
    rule, window, chunk = case.fields["mask"], case.fields.get("window"), case.fields.get("chunk")
    if rule.startswith("bidirectional"):
        inclusive = rule.endswith("inclusive") != (slip == "rules of two directions swapped")
        return lambda i, j: abs(i - j) < window + inclusive
    apart = int(slip == "own key hidden")
    if chunk is None or slip == "chunk as a window":
        return lambda i, j: apart <= i - j and within(window or chunk, slip)(i, j)
    start = int(slip == "chunks from 1")
    return lambda i, j: apart <= i - j and (i + start) // chunk == (j + start) // chunk


def _layer(case: Case, index: int, slip: str) -> tuple[int, int]:
    """Whether a layer turns queries and keys, and how far it sees; 0 is no limit."""
    model, config = case.fields["model"], case.fields["config"]
    reach = config["sliding_window"] if config.get("use_sliding_window") else 0
    family = Family("most", "special", 4, reach) if model == "smollm3" else FAMILIES[model]
    special = (index + (slip != "schedule from layer 0")) % family.every == 0
    rope = {"all": True, "none": False, "most": not special}[family.rope]
    if slip == "no_rope_layers taken literally" and model in ("smollm3", "llama4"):
        rope = not rope
    if family.rope == "most" and _turned_everywhere(model, slip):
        rope = True
    windowed = {"all": True, "most": not special, "special": special}[family.windowed]
    if slip == "window on SmolLM 3's RoPE layers" and model == "smollm3":
        windowed = not windowed
    return int(rope), family.reach if windowed else 0


def _turned_everywhere(model: str, slip: str) -> bool:
    return slip == "RoPE in every layer" or (slip == "RoPE in Cohere's full layers" and model == "cohere2")


def _attention(case: Case, slip: str) -> dict[str, Tensor]:
    """Of a layer with RoPE and what limits its sight, and of a layer with neither."""
    names = {"cohere2": ("sliding", "full"), "smollm3": ("rope", "nope"), "llama4": ("chunked", "full")}
    with_rope, without = names[case.fields["mask"]]
    q, k, v = heads_of(case, "q", "k", "v")
    near, far = _logits(case, q, k, True, slip), _logits(case, q, k, False, slip)
    return {
        f"{with_rope}_logits": near,
        f"{with_rope}_context": attended(near, v, _sees(case, slip)),
        f"{without}_logits": far,
        f"{without}_context": attended(far, v),
    }


def _logits(case: Case, q: Tensor, k: Tensor, rope: bool, slip: str) -> Tensor:
    """Logits of a layer with RoPE, or of one without it."""
    fields, width = case.fields, q.shape[-1]
    if fields.get("qk_norm") and (slip != "norm left out" if rope else slip == "norm in NoPE layers"):
        # After the rotation, which changes no length.
        q, k = (x / (x.square().mean(-1, keepdim=True) + fields["eps"]).sqrt() for x in (q, k))
    layout = fields["rotary_layout"]
    if slip == "other pairing":
        layout = "half-split" if layout == "interleaved" else "interleaved"
    turned = rope or _turned_everywhere(fields["mask"], slip)
    found = turned_products(q, k, fields["rope_base"], layout) if turned else products(q, k)
    if "floor_scale" in fields and (slip == "temperature in RoPE layers" if rope else slip != "no temperature"):
        floor, strength = fields["floor_scale"], fields["attn_scale"]
        factors = [temperature.factor("llama4", i, floor, strength) for i in range(q.shape[2])]
        found = found * exact(factors)[:, None]
    return found * width**-0.5
