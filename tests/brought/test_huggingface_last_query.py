"""What RoPE adds in models of `transformers`, against their own eager attention and against the formulas."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from lpe_eval.errors import CheckpointError
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.language_model import LastQuery
from lpe_eval.model.remap_options import parse_remap
from lpe_eval.model.rope_scalings import DynamicNtk, Linear
from tests.support import remap_oracle
from tests.support.remapped_models import SIZES, opened, with_biases
from tests.support.transformers_models import STREAM, SYMBOLS, TRAINED, config_of, llama, save, since_version_5

LENGTH = 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with grouped keys."""
    return with_biases(save(transformers.LlamaConfig(**SIZES), tmp_path_factory.mktemp("models") / "llama"))


def taken(folder: Path, settings: str = "", length: int = LENGTH) -> list[LastQuery]:
    found: list[LastQuery] = []
    opened(folder, settings).last_query(STREAM[:, :length], torch.Generator(), found.append)
    return found


@torch.no_grad()
def eagerly(folder: Path, length: int = LENGTH, **settings: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Of each layer the last query [h, d] and all keys [h, k, d], unturned, and the weights of that row [h, k]."""
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", **settings)
    out = model.eval()(STREAM[:, :length], output_attentions=True, output_hidden_states=True)
    found = []
    for number, layer in enumerate(model.model.layers):
        h = layer.input_layernorm(out.hidden_states[number])[0]
        q, k = (each(h).unflatten(-1, (-1, layer.self_attn.head_dim)).transpose(0, 1)
                for each in (layer.self_attn.q_proj, layer.self_attn.k_proj))  # fmt: skip
        k = k.repeat_interleave(len(q) // len(k), dim=0)
        found.append((q[:, -1].double(), k.double(), out.attentions[number][0, :, -1].double()))
    return found


def turned_logits(q: Tensor, k: Tensor, apart: Tensor, inverse: Tensor) -> Tensor:
    """[h, k] of one query and keys at some distances from it."""
    by_distance = remap_oracle.rotated(q[:, None], apart.double()[:, None] * inverse.double())
    return (by_distance * k).sum(dim=-1) / math.sqrt(q.shape[-1])


def plain(width: int = 8) -> Tensor:
    return 10000.0 ** (-torch.arange(0, width, 2).double() / width)


def near(found: Tensor, wanted: Tensor, within: float = 2e-5) -> None:
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= within * max(1.0, float(wanted.abs().max()))


def test_a_llama_is_read_layer_by_layer(folder: Path) -> None:
    found = taken(folder)
    assert [each.layer for each in found] == [0, 1]
    for each, (q, k, weights) in zip(found, eagerly(folder), strict=True):
        back = LENGTH - 1 - each.distance
        content = torch.einsum("hd,hkd->hk", q, k)[:, back] / math.sqrt(8)
        near(each.content, content)
        near(each.added, turned_logits(q, k, LENGTH - 1 - torch.arange(LENGTH), plain())[:, back] - content)
        near((each.content + each.added).softmax(dim=-1), weights[:, back])
        assert each.added.abs().max() > 1
        assert each.of_mean_key is not None
        mean = k.mean(dim=1)[:, None].expand_as(k)
        of_mean = turned_logits(q, mean, LENGTH - 1 - torch.arange(LENGTH), plain()) - turned_logits(
            q, mean, torch.zeros(LENGTH), plain()
        )
        near(each.of_mean_key, of_mean[:, back])
        assert each.decay is not None
        near(each.decay, (each.distance.double()[:, None] * plain()).cos().mean(dim=1))
        assert not each.fixed
        assert each.static is None


@pytest.mark.parametrize("remap", ["self_extend:group=3,window=20", "dca:chunk_size=40,local=8", "rerope:window=24"])
def test_other_distances_are_read_as_they_are_taken(remap: str, folder: Path) -> None:
    asked = parse_remap(remap).resolved(TRAINED, "here")
    q, k, _ = eagerly(folder)[0]
    factor = remap_oracle.query_factor(LENGTH - 1, TRAINED if asked.scaled else None)
    apart = remap_oracle.table(LENGTH, asked.method, dict(asked.chosen))[-1]
    each = taken(folder, f"?remap={remap}")[0]
    back = LENGTH - 1 - each.distance
    near(each.content, factor * torch.einsum("hd,hkd->hk", q, k)[:, back] / math.sqrt(8))
    near(each.content + each.added, factor * turned_logits(q, k, apart, plain())[:, back])
    assert each.decay is not None
    near(each.decay, (apart[back][:, None] * plain()).cos().mean(dim=1))


@pytest.mark.parametrize("rule", ["linear:2", "dynamic:2"])
def test_scaled_frequencies_are_those_of_the_pass(rule: str, folder: Path) -> None:
    scaling = {"linear": Linear(factor=2.0), "dynamic": DynamicNtk(factor=2.0)}[rule.partition(":")[0]]
    inverse = scaling.frequencies(8, 10000.0, TRAINED, LENGTH).inverse
    q, k, _ = eagerly(folder)[0]
    each = taken(folder, f"?rope_scaling={rule}")[0]
    apart = LENGTH - 1 - torch.arange(LENGTH)
    near(each.content + each.added, turned_logits(q, k, apart, inverse)[:, LENGTH - 1 - each.distance])


@since_version_5
def test_layers_with_a_window_show_what_they_see_and_layers_without_rope_add_nothing(tmp_path: Path) -> None:
    four: dict[str, Any] = {**SIZES, "num_hidden_layers": 4}
    kinds = ["sliding_attention", "full_attention"] * 2
    gemma = transformers.Gemma3TextConfig(**four, head_dim=8, sliding_window=16, layer_types=kinds)
    found = taken(save(gemma, tmp_path / "gemma"))
    assert [len(each.distance) for each in found] == [16, LENGTH, 16, LENGTH]
    assert sorted(found[0].distance.tolist()) == list(range(16))
    smol = taken(save(transformers.SmolLM3Config(**four), tmp_path / "smol"))
    assert [bool(each.added.abs().max() > 0) for each in smol] == [True, True, True, False]
    assert smol[3].decay is None


@since_version_5
def test_a_soft_cap_is_part_of_content(tmp_path: Path) -> None:
    one: dict[str, Any] = {**SIZES, "num_hidden_layers": 1}
    config = transformers.Gemma2Config(
        **one, head_dim=8, attn_logit_softcapping=2.0, layer_types=["full_attention"], query_pre_attn_scalar=8
    )
    folder = save(config, tmp_path / "gemma")
    (each,), (_, _, weights) = taken(folder), eagerly(folder)[0]
    assert each.content.abs().max() <= 2
    near((each.content + each.added).softmax(dim=-1), weights[:, LENGTH - 1 - each.distance])


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("gpt2", "adds its positions to the embeddings of its tokens"),
        ("opt", "adds its positions to the embeddings of its tokens"),
        ("bloom", "cannot be tried|does not go through the registration of transformers"),
        ("mpt", "cannot be tried|does not go through the registration of transformers"),
    ],
)
def test_what_cannot_be_read_is_refused(kind: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=why):
        taken(save(config_of(kind), tmp_path / kind), length=20)


def test_a_model_of_ones_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\nclass Own(torch.nn.Module):\n    def forward(self, tokens):\n"
        "        return torch.zeros(*tokens.shape, 256)\n"
    )
    model = locate(f"py:{tmp_path / 'own.py'}:Own").load(LoadOptions())
    with pytest.raises(CheckpointError, match=r"opened as python, and what happens .* known to its own code"):
        model.last_query(STREAM[:, :9], torch.Generator(), print)


def test_the_model_answers_as_before(tmp_path: Path) -> None:
    model = opened(save(llama(), tmp_path / "llama"))
    before = model.hidden(STREAM[:, :40], 3, torch.Generator())
    path, found = model.attention, []
    model.last_query(STREAM[:, :40], torch.Generator(), found.append)
    assert model.attention == path
    assert torch.equal(model.hidden(STREAM[:, :40], 3, torch.Generator()), before)
    assert len(found) == 2
    assert model.facts.vocab_size == SYMBOLS
