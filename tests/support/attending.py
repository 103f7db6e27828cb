"""One attention layer of any encoding: its spellings, the encoding itself, and what a path makes of random texts."""

import torch

from lpe_eval.model.build import build_encodings, initialise
from lpe_eval.model.encoding import Encoding, EncodingWrapper
from lpe_eval.model.mask import Mask
from lpe_eval.model.scores import Geometry
from lpe_eval.registry import ENCODINGS
from lpe_eval.spec.encoding_spec import EncodingSpec
from tests.support.spelling import bases_of

CPU = torch.device("cpu")
REMAPS = ("sinks(remap(rope))", "tempered(remap(rope))", "remap(tempered(rope))", "remap(p_rope)", "remap(sinks(rope))")
"""Distances of RoPE that are mapped inside or outside of another change."""


def every_encoding() -> list[str]:
    names = []
    for name in ENCODINGS.names():
        wraps = issubclass(ENCODINGS.load(name), EncodingWrapper)
        inner = bases_of(name, ("alibi", "none", "rope", "kerple_log")) if wraps else []
        names += [f"{name}({each})" for each in inner] if wraps else [name]
    return [*names, "sinks(fox)", "sinks(inkling)", *REMAPS]


def serves(text: str, causal: bool) -> bool:
    """Whether an encoding can be built for a direction."""
    return causal or not any(ENCODINGS.load(each.strip(") ")).causal_only for each in text.split("("))


def built(text: str, causal: bool, heads: int = 3, train_length: int = 64) -> Encoding:
    geometry = Geometry(heads, 8, heads * 8, train_length, causal)
    encodings = build_encodings(EncodingSpec.parse(text), geometry, 1)
    generator = torch.Generator().manual_seed(3)
    initialise(encodings, generator)
    for parameter in encodings[0].parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, generator=generator)
    return encodings[0]


def features_of(encoding: Encoding, batch: int, length: int, dtype=torch.float32):
    """What an encoding makes of the input of a layer that is the same in every call."""
    draw = torch.Generator().manual_seed(11)
    return encoding.features(torch.randn(batch, length, encoding.geometry.width, generator=draw).to(dtype))


def attended(path, encoding: Encoding, rows: int, length: int, mask: Mask, dtype=torch.float32, seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    at = encoding.positions(length, CPU, torch.Generator().manual_seed(5))
    heads = encoding.geometry.heads
    q, k, v = (torch.randn(2, heads, length, 8, generator=draw).to(dtype).requires_grad_() for _ in range(3))
    turned_q, turned_k = (each.to(dtype) for each in encoding.rotate(q, k, at))
    features = features_of(encoding, 2, length, dtype)
    context = path.attend(turned_q[:, :, length - rows :], turned_k, v, encoding, at, mask, features)
    learned = [each for each in encoding.parameters() if each.requires_grad]
    weights = torch.randn(context.shape, generator=draw)
    gradients = torch.autograd.grad((context.float() * weights).sum(), [q, k, v, *learned], allow_unused=True)
    return context, gradients


def scored(path, encoding: Encoding, rows: int, length: int, mask: Mask, gradients: bool = False):
    """The context alone: as evaluation has it, or by the forms that serve gradients."""
    draw, heads = torch.Generator().manual_seed(1), encoding.geometry.heads
    with torch.set_grad_enabled(gradients):
        at = encoding.positions(length, CPU, torch.Generator().manual_seed(5))
        q, k, v = (torch.randn(2, heads, length, 8, generator=draw) for _ in range(3))
        q, k = encoding.rotate(q, k, at)
        features = features_of(encoding, 2, length)
        return path.attend(q[:, :, length - rows :], k, v, encoding, at, mask, features).detach()
