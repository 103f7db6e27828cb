"""What an encoding says of its own seams is so, and training in blocks that are computed again keeps its promise."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from lpe_eval.model.attentions.blocked import Blocked
from lpe_eval.model.attentions.checkpointed import Checkpointed
from lpe_eval.model.build import build_encodings, initialise
from lpe_eval.model.encoding import Encoding, EncodingWrapper, Geometry, Scores
from lpe_eval.model.mask import Mask
from lpe_eval.registry import ENCODINGS
from lpe_eval.spec.encoding_spec import EncodingSpec
from tests.support.spelling import bases_of


def built(text: str, causal: bool = True, **options) -> Encoding:
    spec = EncodingSpec.parse(text).model_copy(update={"options": options})
    encodings = build_encodings(spec, Geometry(3, 8, 24, 16, causal), 1)
    initialise(encodings, torch.Generator().manual_seed(3))
    return encodings[0]


def every_encoding() -> list[str]:
    names = []
    for name in ENCODINGS.names():
        wraps = issubclass(ENCODINGS.load(name), EncodingWrapper)
        inner = bases_of(name, ("rope", "fire", "dape(t5)", "fox")) if wraps else []
        names += [f"{name}({each})" for each in inner] if wraps else [name]
    return names


def scores_of(encoding: Encoding, length: int) -> Scores:
    length = min(length, encoding.longest_length or length)
    draw, at = torch.Generator().manual_seed(1), encoding.positions(length, torch.device("cpu"), torch.Generator())
    q, k = (torch.randn(2, 3, length, 8, generator=draw) for _ in range(2))
    q, k = encoding.rotate(q, k, at)
    visible = torch.ones(length, length, dtype=torch.bool).tril()
    features = encoding.features(torch.randn(2, length, 24, generator=draw))
    return Scores(q @ k.transpose(-1, -2), encoding.bias(at, at), q, k, visible, at, at, features, features)


@pytest.mark.parametrize("text", every_encoding())
def test_a_pair_network_computes_what_adjust_does(text: str):
    encoding = built(text)
    network, scores = encoding.pair_network(), scores_of(encoding, 12)
    if network is None:
        assert not text.startswith("dape(") or "dape(t5)" in text or "fox" in text
        return
    s, b = scores.logits, None if scores.bias is None else scores.bias.expand_as(scores.logits)
    read = s if b is None else torch.cat([s, b], dim=1)
    hidden = torch.einsum("uc,bcqk->buqk", network.first, read) + network.first_bias[:, None, None]
    change = torch.einsum("hu,buqk->bhqk", network.second, leaky_relu(hidden, network.leak))
    logits = s + change + network.second_bias[:, None, None]
    logits = logits + b if b is not None and network.keeps_bias else logits
    torch.testing.assert_close(encoding.adjust(scores), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("residual", [True, False])
def test_a_pair_network_says_whether_the_bias_is_kept(residual: bool):
    network = built("dape(alibi)", residual=residual).pair_network()
    assert network is not None
    assert network.keeps_bias is residual


@pytest.mark.parametrize("text", every_encoding())
def test_a_ratio_bias_computes_what_bias_does(text: str):
    encoding = built(text)
    ratio, at = encoding.ratio_bias(), torch.arange(40)
    if ratio is None:
        assert "fire" not in text or text.startswith("randomized")
        return
    r = ratio.numerator(at[:, None] - at) / ratio.denominator(at, at)[:, None]
    pieces = ratio.pieces()
    piece = (r[..., None] >= pieces.knots).sum(-1)
    bias = encoding.bias(at, at)
    assert bias is not None
    torch.testing.assert_close(pieces.constant[:, piece] + pieces.slope[:, piece] * r, bias, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", every_encoding())
def test_a_level_bias_computes_what_adjust_does(text: str):
    encoding = built(text)
    described, scores = encoding.level_bias(), scores_of(encoding, 40)
    if described is None:
        assert text not in ("fox", "cable", "sinks(fox)", "tempered(fox)")
        return
    assert scores.query_features is not None
    levels = described.levels(scores.query_features)
    added = (levels[..., :, None] - levels[..., None, :]).float()
    torch.testing.assert_close(encoding.adjust(scores), scores.logits + added, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("text", every_encoding())
def test_a_near_bias_computes_what_adjust_does(text: str):
    encoding = built(text, extent=9) if text == "inkling" else built(text)
    described, scores = encoding.near_bias(), scores_of(encoding, 40)
    if described is None:
        assert text != "inkling"
        return
    assert scores.query_features is not None
    by_offset = described.by_falling_offset(scores.query_features, scores.q_at).flip(-1)
    added = torch.zeros_like(scores.logits)
    for row in range(40):
        for key in range(max(0, row - described.extent + 1), row + 1):
            added[:, :, row, key] = by_offset[:, :, row, row - key]
    visible = scores.visible
    torch.testing.assert_close(encoding.adjust(scores)[..., visible], (scores.logits + added)[..., visible])


def kept_for_gradients(path, length: int) -> int:
    """Bytes that a forward pass keeps for its backward pass, each stretch of memory once."""
    encoding, draw = built("dape(kerple_log)"), torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 3, length, 8, generator=draw).requires_grad_() for _ in range(3))
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        context = path.attend(q, k, v, encoding, torch.arange(length), Mask())
    assert context.requires_grad
    return sum(sizes.values())


def test_what_is_kept_for_gradients_grows_with_the_length_and_not_its_square():
    assert kept_for_gradients(Checkpointed, 1024) < 2.2 * kept_for_gradients(Checkpointed, 512)
    assert kept_for_gradients(Blocked, 1024) > 3 * kept_for_gradients(Blocked, 512)
