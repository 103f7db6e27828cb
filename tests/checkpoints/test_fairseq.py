"""fairseq language models in their layout, against a forward pass and an adaptive softmax written elsewhere."""

import os
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.errors import CheckpointError, DataError, LengthError, SpecError, UnknownName
from lpe_eval.model.adaptive import AdaptiveEmbedding, AdaptiveHead
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.checkpoints.fairseq import Fairseq
from lpe_eval.model.checkpoints.gpt_neox import GptNeox
from lpe_eval.model.checkpoints.native import Native
from lpe_eval.model.transformer_model import TransformerModel
from lpe_eval.spec.model_spec import AdaptiveSpec
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


def opened(reference: str, **options: Any) -> TransformerModel:
    model = locate(reference).load(LoadOptions(**options))
    assert isinstance(model, TransformerModel)
    return model


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


# --- the dictionary


def test_words_are_numbered_as_in_the_dictionary_and_lines_end_in_eos(tmp_path: Path) -> None:
    (tmp_path / "dict.txt").write_text("the 10\n, 9\ncafé 3\nmadeupword0000 0\n")
    tokenizer = open_tokenizer(f"fairseq_dict:{tmp_path / 'dict.txt'}")
    text = " the café ,\n \n the <unk> cats , "
    encoded = tokenizer.encode(text)
    assert encoded.tokens.tolist() == [4, 6, 5, 2, 2, 4, 3, 3, 5]
    assert encoded.n_bytes.tolist() == [4, 6, 2, 1, 2, 4, 6, 5, 3]
    assert encoded.n_bytes.sum() == len(text.encode())
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.bos_id) == (8, 2, 2)
    assert tokenizer.encode(" ").tokens.tolist() == []


def test_a_word_that_overwrites_another_takes_a_new_number(tmp_path: Path) -> None:
    (tmp_path / "dict.txt").write_text("a 3\n<unk> 2 #fairseq:overwrite\nb 1\n")
    tokenizer = open_tokenizer(f"fairseq_dict:{tmp_path / 'dict.txt'}")
    assert tokenizer.encode("a <unk> b c").tokens.tolist() == [4, 5, 6, 3]
    assert tokenizer.vocab_size == 7


@pytest.mark.parametrize(
    ("content", "message"), [("a 3\na 4\n", "line 2: the word 'a'"), ("alone\n", "line 1"), ("a b\n", "line 1")]
)
def test_a_dictionary_that_is_none_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "dict.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        open_tokenizer(f"fairseq_dict:{tmp_path / 'dict.txt'}")


def test_a_missing_dictionary_is_refused_by_the_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        open_tokenizer(f"fairseq_dict:{tmp_path / 'dict.txt'}")
    with pytest.raises(SpecError, match="names no file"):
        open_tokenizer("fairseq_dict:")


def test_the_dictionary_must_be_there_and_of_the_model(tmp_path: Path) -> None:
    path = write(tmp_path / "run", flags())
    assert locate(str(path)).peek(LoadOptions()).tokenizer == f"fairseq_dict:{tmp_path / 'run' / 'dict.txt'}"
    shutil.move(tmp_path / "run" / "dict.txt", tmp_path / "moved.txt")
    with pytest.raises(CheckpointError, match=r"no dict\.txt beside it"):
        locate(str(path)).peek(LoadOptions())
    assert locate(str(path)).peek(LoadOptions(tokenizer="bytes")).tokenizer == "bytes"
    assert locate(f"fairseq:{path}?dict={tmp_path / 'moved.txt'}").peek(LoadOptions()).tokenizer.endswith("moved.txt")
    with pytest.raises(CheckpointError, match="is not there"):
        locate(f"fairseq:{path}?dict={tmp_path / 'none.txt'}").peek(LoadOptions())
    other = write(tmp_path / "other", flags(), words=WORDS + 1)
    with pytest.raises(CheckpointError, match=r"has 41 words with the four special ones, but .* has 40"):
        opened(str(other))


# --- what is refused


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("where", ["args", "extra_state", "model"])
def test_a_malicious_file_runs_nothing_and_is_named(tmp_path: Path, where: str, zipped: bool) -> None:
    marker = tmp_path / "marker"
    path = write(tmp_path, flags())
    content = torch.load(path, weights_only=False)
    evil = Malicious(marker)
    content[where] = {**content["model"], "evil": evil} if where == "model" else Namespace(evil=evil)
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    located = locate(str(path))
    located.peek(LoadOptions())
    with pytest.raises(CheckpointError, match=r"alibi_wt103_L12\.pt asks for \S*system") as error:
        located.load(LoadOptions())
    assert "\n" not in str(error.value)
    assert not marker.exists()


@pytest.mark.parametrize("keep", [100, 3000, -100])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path, flags())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"alibi_wt103_L12\.pt is damaged"):
        opened(f"fairseq:{path}")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"decoder_layers": 3}, r"has no decoder\.layers\.2"),
        ({"decoder_layers": 1}, r"holds decoder\.layers\.1"),
        ({"decoder_ffn_embed_dim": 50}, r"decoder\.layers\.\d\.fc\d\.\w+ has shape"),
        ({"decoder_attention_heads": 5}, "5 heads"),
        ({"adaptive_input_cutoff": "9,22", "adaptive_softmax_cutoff": "9,22"}, "has shape"),
        ({"adaptive_softmax_cutoff": "9"}, "different bands"),
        ({"adaptive_softmax_cutoff": None}, "adaptive input or softmax alone"),
        ({"adaptive_input_cutoff": "many"}, "flag adaptive_input_cutoff"),
        ({"decoder_input_dim": 16}, "another width"),
        ({"activation_fn": "tanh"}, "activation tanh"),
        ({"layernorm_embedding": True}, "layernorm_embedding"),
        ({"no_decoder_final_norm": False}, r"has no decoder\.layer_norm\.weight"),
        ({"tie_adaptive_proj": False}, "has shape|is not the weight"),
        ({"tokens_per_sample": "long"}, "flag tokens_per_sample"),
    ],
)
def test_flags_that_disagree_with_the_weights_are_refused(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    path = write(tmp_path, flags())
    content = torch.load(path, weights_only=False)
    content["args"] = Namespace(**flags(**changed))
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=message) as error:
        opened(str(path))
    assert "\n" not in str(error.value)


def test_weights_that_should_be_tied_and_are_not_are_refused(tmp_path: Path) -> None:
    own = {"decoder.adaptive_softmax.tail.1.2.weight": normal(19, 2, seed=99)}
    with pytest.raises(CheckpointError, match=r"tail\.1\.2\.weight is not the weight that its flags tie it to"):
        opened(str(write(tmp_path, flags(), **own)))


def test_a_file_without_flags_or_model_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, flags())
    content = torch.load(path, weights_only=False)
    torch.save({**content, "args": None}, path)
    with pytest.raises(CheckpointError, match="holds no flags"):
        opened(f"fairseq:{path}")
    torch.save({"args": Namespace()}, path)
    with pytest.raises(CheckpointError, match="has no `model`"):
        opened(f"fairseq:{path}")


def test_a_file_is_recognised_by_its_content_and_others_are_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "run", flags())
    assert locate(str(path)).format is locate(str(path.parent)).format is Fairseq
    assert not GptNeox.recognises(path.parent)
    torch.save({"model": torch.ones(1), "args": None}, tmp_path / "other.pt")
    torch.save({"model": {"decoder.layers.0.x": 0, "encoder.layers.0.x": 0}, "args": None}, tmp_path / "both.pt")
    (tmp_path / "text.pt").write_text("decoder.layers.0 model args")
    (tmp_path / "dict.txt").write_text("a 1\n")
    for name in ("other.pt", "both.pt", "text.pt", "dict.txt", "nothing.pt"):
        assert not Fairseq.recognises(tmp_path / name)
    assert not Fairseq.recognises(tmp_path)
    shutil.copy(path, path.parent / "second.pt")
    with pytest.raises(CheckpointError, match=r"alibi_wt103_L12\.pt, second\.pt; name the one file"):
        opened(str(path.parent))
    with pytest.raises(CheckpointError, match=r"no \.pt file"):
        opened(f"fairseq:{tmp_path}")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        opened(f"fairseq:{tmp_path / 'nothing.pt'}")


def test_settings_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path, flags())
    with pytest.raises(UnknownName, match="encoding"):
        opened(f"fairseq:{path}?encodings=alibi")
    with pytest.raises(UnknownName, match="alibi"):
        opened(f"fairseq:{path}?encoding=alibii")
    with pytest.raises(CheckpointError, match="so its positions were not learned"):
        opened(f"fairseq:{path}?encoding=learned")
