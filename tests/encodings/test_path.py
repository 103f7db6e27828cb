"""PaTH."""

import pytest
import torch
from torch import Tensor

from lpe_eval.model.attentions.blocked import Blocked
from lpe_eval.model.encodings import path
from lpe_eval.model.mask import Mask
from tests.support.golden_cases import Case, each, tensor
from tests.support.golden_layers import check_layer, layered
from tests.support.official_parameters import build, geometry
from tests.support.random_weights import seeded


@pytest.fixture(params=[64, 4, 3, 1])
def tokens_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(path, "_TOKENS", request.param)
    return request.param


def features_of(case: Case) -> Tensor:
    queries, keys = len(case.inputs["q"][0]), len(case.inputs["k"][0])
    w, strength = (tensor(case.inputs[name]).repeat_interleave(queries // keys, dim=1) for name in ("w", "beta"))
    gates = [tensor(case.inputs["log_gate"])[..., None]] if "gated" in case.id else []
    return torch.cat([w, strength[..., None], *gates], dim=-1)


@each("path")
def test_path_has_the_published_numbers(case: Case, tokens_at_once: int) -> None:
    encoding = build("path", geometry(case.heads or 0, case.head_dim or 0), forget_gate="gated" in case.id)
    check_layer(case, layered(encoding, case, features=features_of(case)))


def test_every_key_is_reflected_at_every_token_on_its_way(tokens_at_once: int) -> None:
    """One reflection after another, and the layer around them, written out."""
    encoding = build("path", geometry(2, head_width=4), forget_gate=True).double()
    for parameter in encoding.parameters():
        torch.nn.init.normal_(parameter, generator=seeded(parameter.numel()))
    x = torch.randn(1, 7, 8, generator=seeded(1), dtype=torch.float64)
    features = encoding.features(x)
    assert features is not None
    state = encoding.state_dict()
    wide = x[0] @ state["narrow.weight"].T @ state["normal.weight"].T
    early = torch.cat([torch.zeros(2, 8, dtype=torch.float64), wide])
    mixed = sum(early[tap : tap + 7] * state["taps"][:, 0, tap] for tap in range(3))
    assert isinstance(mixed, Tensor)
    w = torch.nn.functional.silu(mixed).unflatten(-1, (2, 4)).transpose(0, 1)
    w = w / (w.square().sum(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(features[0, :, :, :4], w)
    strength = 2 * torch.sigmoid(x[0] @ state["strength.weight"].T + state["strength.bias"]).T
    gates = torch.nn.functional.logsigmoid(x[0] @ state["gate.weight"].T + state["gate.bias"]).T
    torch.testing.assert_close(features[0, :, :, 4:], torch.stack([strength, gates], dim=-1))
    q, k, v = (torch.randn(1, 2, 7, 4, generator=seeded(each), dtype=torch.float64) for each in range(3))
    context, wanted = Blocked.attend(q, k, v, encoding, torch.arange(7), Mask(), features), torch.zeros_like(v)
    for head in range(2):
        for i in range(7):
            logits = []
            for j in range(i + 1):
                key, gate = k[0, head, j], torch.zeros((), dtype=torch.float64)
                for token in range(j + 1, i + 1):
                    plane, beta = features[0, head, token, :4], features[0, head, token, 4]
                    key, gate = key - beta * plane * (plane @ key), gate + features[0, head, token, 5]
                logits.append((q[0, head, i] @ key + gate) / 2)
            wanted[0, head, i] = torch.stack(logits).softmax(0) @ v[0, head, : i + 1]
    torch.testing.assert_close(context, wanted)


def test_memory_is_linear_in_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """No block ever holds more than its rows times the keys, and reflections are passed a group at a time."""
    shapes = []
    own = path.through_reflections

    def seen(queries, keys, *others):
        shapes.append((queries.shape[2], keys.shape[2]))
        return own(queries, keys, *others)

    monkeypatch.setattr(path, "through_reflections", seen)
    encoding = build("path", geometry(2, head_width=4))
    encoding.initialise(seeded())
    q, k, v = (torch.randn(1, 2, 700, 4, generator=seeded(each)) for each in range(3))
    features = encoding.features(torch.randn(1, 700, 8, generator=seeded(4)))
    with torch.no_grad():
        Blocked.attend(q, k, v, encoding, torch.arange(700), Mask(), features)
    assert max(rows for rows, _ in shapes) <= 128
    assert sum(rows for rows, _ in shapes) == 700
