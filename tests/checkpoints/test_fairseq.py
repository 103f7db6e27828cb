"""fairseq language models in their layout, against a forward pass and an adaptive softmax written elsewhere."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lpe_eval.errors import CheckpointError, LengthError
from lpe_eval.model.adaptive import AdaptiveEmbedding, AdaptiveHead
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.checkpoints.native import Native
from lpe_eval.model.transformer_model import TransformerModel
from lpe_eval.spec.model_spec import AdaptiveSpec
from tests.support.fairseq_models import opened
from tests.support.fairseq_reference import (
    TRAIN_LENGTH,
    WIDTH,
    WORDS,
    flags,
    hidden_states,
    normal,
    state_dict,
    torchs_softmax,
    write,
)

TOKENS = torch.randint(WORDS, (2, 30), generator=torch.Generator().manual_seed(0))


def hidden_of(model: TransformerModel, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model.hidden(tokens, tokens.shape[1], torch.Generator())


def agree(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 1e-5 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"tie_adaptive_proj": False},
        {"tie_adaptive_weights": False, "tie_adaptive_proj": False},
        {"no_scale_embedding": True, "activation_fn": "gelu"},
        {"no_decoder_final_norm": False},
    ],
)
@pytest.mark.parametrize("newer", [False, True])
def test_hidden_states_and_probabilities_agree_inside_and_beyond_the_training_length(
    tmp_path: Path, changed: dict[str, Any], newer: bool
) -> None:
    args = flags(**changed)
    model = opened(str(write(tmp_path, args, newer=newer)))
    state = state_dict(args)
    for length in (7, 30):
        found = hidden_of(model, TOKENS[:, :length])
        agree(found, hidden_states(state, args, TOKENS[:, :length], "alibi"))
        with torch.no_grad():
            wanted = torchs_softmax(state, args).log_prob(found.flatten(0, 1))
            agree(model.logits(found.flatten(0, 1)), wanted)


@pytest.mark.parametrize("share", [False, True])
def test_a_model_with_one_table_agrees(tmp_path: Path, share: bool) -> None:
    args = flags(adaptive_input=False, adaptive_softmax_cutoff=None, share_decoder_input_output_embed=share)
    model, state = opened(str(write(tmp_path, args))), state_dict(args)
    found = hidden_of(model, TOKENS)
    agree(found, hidden_states(state, args, TOKENS, "alibi"))
    with torch.no_grad():
        agree(model.logits(found[0]), found[0] @ state["decoder.output_projection.weight"].T)


def test_a_model_of_plain_fairseq_is_opened_by_naming_its_positions(tmp_path: Path) -> None:
    args = flags()
    path = write(tmp_path, args)
    for encoding in ("sinusoidal", "none"):
        model = opened(f"fairseq:{path}?encoding={encoding}")
        agree(hidden_of(model, TOKENS), hidden_states(state_dict(args), args, TOKENS, encoding))


def test_a_table_of_positions_must_be_claimed(tmp_path: Path) -> None:
    args = flags()
    table = {"decoder.embed_positions.weight": normal(TRAIN_LENGTH + 2, WIDTH, seed=70, std=1.0)}
    path = write(tmp_path, args, **table)
    with pytest.raises(CheckpointError, match=r"encoding=learned, or \?encoding=alibi"):
        opened(str(path))
    learned, alibi = opened(f"fairseq:{path}?encoding=learned"), opened(f"fairseq:{path}?encoding=alibi")
    state, tokens = {**state_dict(args), **table}, TOKENS[:, :TRAIN_LENGTH]
    agree(hidden_of(learned, tokens), hidden_states(state, args, tokens, "learned"))
    agree(hidden_of(alibi, TOKENS), hidden_states(state, args, TOKENS, "alibi"))
    with pytest.raises(LengthError, match="12 tokens"):
        hidden_of(learned, TOKENS[:, : TRAIN_LENGTH + 1])


def test_checkpoints_from_before_the_final_norm_have_none(tmp_path: Path) -> None:
    args = flags(no_tie_adaptive_proj=False, no_decoder_final_norm=True, tie_adaptive_proj=True)
    agree(
        hidden_of(opened(str(write(tmp_path / "a", args))), TOKENS),
        hidden_states(state_dict(args), args, TOKENS, "alibi"),
    )
    del args["no_tie_adaptive_proj"]
    args["no_decoder_final_norm"] = False
    state = {key: value for key, value in state_dict(args).items() if "decoder.layer_norm" not in key}
    old = {"decoder.version": torch.tensor([2.0])}
    path = write(tmp_path / "b", args, **old)
    content = torch.load(path, weights_only=False)
    content["model"] = {**state, **old}
    torch.save(content, path)
    agree(hidden_of(opened(str(path)), TOKENS), hidden_states({**state, **old}, args, TOKENS, "alibi"))


def test_the_folder_the_file_and_both_ways_of_saving_are_one_model(tmp_path: Path) -> None:
    path = write(tmp_path / "wt103", flags())
    older = write(tmp_path / "older", flags(), zipped=False)
    by_folder, by_file = opened(str(path.parent)), opened(str(path))
    assert (by_folder.facts.name, by_file.facts.name) == ("wt103", "alibi_wt103_L12")
    assert by_folder.facts.digest == by_file.facts.digest == locate(str(path)).peek(LoadOptions()).digest
    assert torch.equal(hidden_of(by_file, TOKENS), hidden_of(opened(str(older)), TOKENS))
    assert (by_file.facts.train_length, by_file.facts.vocab_size) == (TRAIN_LENGTH, WORDS)
    assert by_file.facts.encoding == "alibi"
    assert by_file.mapped["decoder.layers.1.self_attn.k_proj.bias"] == "layers.1.query_key_value.bias"
    buffers = {key for key in state_dict(flags()) if key.endswith(("_float_tensor", "version"))}
    assert by_file.mapped.keys() == state_dict(flags()).keys() - buffers


def test_the_native_form_computes_the_same(tmp_path: Path) -> None:
    for number, changed in enumerate(({}, {"tie_adaptive_weights": False, "tie_adaptive_proj": False})):
        model = opened(str(write(tmp_path / f"{number}", flags(**changed))))
        Native.save(model.model, model.spec, tmp_path / f"native{number}", torch.float32)
        back = Native.load(tmp_path / f"native{number}", LoadOptions())
        assert isinstance(back, TransformerModel)
        found = hidden_of(back, TOKENS)
        assert torch.equal(found, hidden_of(model, TOKENS))
        with torch.no_grad():
            assert torch.equal(back.logits(found[0]), model.logits(found[0]))


def test_an_adaptive_head_gives_logarithms_of_probabilities_and_a_gradient_to_every_table() -> None:
    spec = AdaptiveSpec(cutoffs=(5, 9, 20), factor=2.0)
    embedding = AdaptiveEmbedding(spec, 31, 16)
    head = AdaptiveHead(spec, 31, 16, embedding)
    vectors = embedding(torch.arange(31)[None])
    logs = head(vectors)
    assert torch.allclose(logs.exp().sum(-1), torch.ones(1, 31), atol=1e-5)
    assert [tuple(table.weight.shape) for table in embedding.tables] == [(5, 16), (4, 8), (11, 4), (11, 2)]
    logs.diagonal(dim1=1, dim2=2).sum().backward()
    for name, parameter in [*embedding.named_parameters(), *head.named_parameters()]:
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize(
    "fields", [{"cutoffs": ()}, {"cutoffs": (9, 9)}, {"cutoffs": (0,)}, {"cutoffs": (9,), "tied_tables": False}]
)
def test_impossible_bands_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        AdaptiveSpec(**fields)
