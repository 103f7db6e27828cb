"""`lpe-eval convert`: the native form of what ends as our transformer, and refusals of what does not."""

import os
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.commands.convert import with_absolute_paths
from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.transformer_model import TransformerModel
from tests.support.fairseq_reference import WORDS, flags
from tests.support.fairseq_reference import write as write_fairseq
from tests.support.native_checkpoints import native
from tests.support.neox_files import ROWS, SYMBOLS, layers_of, write
from tests.support.spelling import neox_id


def convert(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    assert result.exit_code == code, result.output + repr(result.exception)
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def opened(reference: str, **options: bool) -> TransformerModel:
    model = locate(reference).load(LoadOptions(**options))
    assert isinstance(model, TransformerModel)
    return model


def scores(model: TransformerModel, symbols: int) -> Tensor:
    tokens = torch.randint(symbols, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.logits(model.hidden(tokens, 40, torch.Generator()).flatten(0, 1))


@pytest.mark.parametrize(
    "pos_emb", ["kerple_log", "kerple_power_ap_", "alibi", "rpe", "rotary", "fire", "kerple_c"], ids=neox_id
)
def test_a_converted_neox_model_has_identical_logits_and_its_tokenizer(tmp_path: Path, pos_emb: str) -> None:
    folder = write(tmp_path / "run", pos_emb, layers_of(pos_emb)).folder
    told = convert(f"neox:{folder}", tmp_path / "native")
    assert f"lpe-eval ppl -m {tmp_path / 'native'}" in told
    before, after = opened(f"neox:{folder}"), opened(str(tmp_path / "native"))
    assert torch.equal(scores(after, SYMBOLS), scores(before, SYMBOLS))
    assert after.facts.format == "native" and after.facts.name == before.facts.name
    assert after.facts._replace(format="", digest="", tokenizer="") == before.facts._replace(
        format="", digest="", tokenizer=""
    )
    one, other = (open_tokenizer(each.facts.tokenizer) for each in (before, after))
    assert one.fingerprint == other.fingerprint
    assert {each.name for each in (tmp_path / "native").iterdir()} == {"config.yaml", "model.safetensors"}
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_padding_is_kept_where_it_was_asked_for(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", "alibi", layers_of("alibi")).folder
    convert(folder, tmp_path / "native", "--as-published")
    assert opened(str(tmp_path / "native")).facts.vocab_size == ROWS
    wanted = scores(opened(str(folder), as_published=True), SYMBOLS)
    assert torch.equal(scores(opened(str(tmp_path / "native")), SYMBOLS), wanted)


@pytest.mark.parametrize("changed", [{}, {"tie_adaptive_weights": False, "tie_adaptive_proj": False}])
def test_a_converted_fairseq_model_has_identical_scores(tmp_path: Path, changed: dict[str, bool]) -> None:
    path = write_fairseq(tmp_path / "wt103", flags(**changed))
    convert(path, tmp_path / "native")
    before, after = opened(str(path)), opened(str(tmp_path / "native"))
    assert torch.equal(scores(after, WORDS), scores(before, WORDS))
    assert open_tokenizer(after.facts.tokenizer).fingerprint == open_tokenizer(before.facts.tokenizer).fingerprint


def test_a_native_checkpoint_can_be_rounded_to_half_its_size(tmp_path: Path) -> None:
    folder = native(tmp_path / "mine", "kerple_log")
    convert(folder, tmp_path / "small", "--dtype", "bfloat16")
    before, after = (load_file(each / "model.safetensors") for each in (folder, tmp_path / "small"))
    assert {name: each.to(torch.bfloat16).tolist() for name, each in before.items()} == {
        name: each.tolist() for name, each in after.items()
    }
    convert(tmp_path / "small", tmp_path / "large")
    assert torch.equal(scores(opened(str(tmp_path / "large")), 256), scores(opened(str(tmp_path / "small")), 256)), (
        "what is wider holds the same numbers"
    )


def test_a_relative_tokenizer_path_works_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "run", "alibi", layers_of("alibi"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    convert("neox:run", "native")
    monkeypatch.chdir(tmp_path / "elsewhere")
    named = opened("../native").facts.tokenizer
    assert named == f"bpe:{tmp_path / 'run/gpt2-vocab.json'},{tmp_path / 'run/gpt2-merges.txt'}"
    assert open_tokenizer(named).vocab_size == SYMBOLS


def test_only_files_that_are_there_get_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tokenizer").mkdir()
    assert with_absolute_paths("bytes") == "bytes"
    assert with_absolute_paths("hf:org/name@main") == "hf:org/name@main"
    assert with_absolute_paths("hf:tokenizer") == f"hf:{tmp_path / 'tokenizer'}"


def test_a_missing_tokenizer_is_told_and_can_be_replaced(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", "alibi", layers_of("alibi"), with_vocabulary=False).folder
    assert "tokenizer cannot be opened here" in convert(f"neox:{folder}?vocab={SYMBOLS}", tmp_path / "a")
    told = convert(f"neox:{folder}?vocab={SYMBOLS}", tmp_path / "b", "--tokenizer", "bytes")
    assert "cannot be opened" not in told and opened(str(tmp_path / "b")).facts.tokenizer == "bytes"


def test_what_is_no_transformer_of_ours_is_refused_in_one_sentence(tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=256, n_positions=64, n_embd=32, n_layer=2, n_head=4)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    told = convert(f"hf:{tmp_path / 'gpt2'}", tmp_path / "out", "--tokenizer", "bytes", code=2)
    assert "have no native form" in told
    (tmp_path / "own.py").write_text("import torch\ndef make():\n    return lambda t: torch.zeros(*t.shape, 256)\n")
    assert "opened as python" in convert(f"py:{tmp_path / 'own.py'}:make", tmp_path / "out", code=2)
    assert not (tmp_path / "out").exists()


def test_a_destination_in_use_is_refused_and_replaced_on_request(tmp_path: Path) -> None:
    first, second = native(tmp_path / "first", "alibi"), native(tmp_path / "second", "kerple_log")
    (tmp_path / "empty").mkdir()
    convert(first, tmp_path / "empty")
    assert "is not empty" in convert(second, tmp_path / "empty", code=2)
    assert opened(str(tmp_path / "empty")).facts.encoding == "alibi"
    convert(second, tmp_path / "empty", "--overwrite")
    assert opened(str(tmp_path / "empty")).facts.encoding == "kerple_log"
    assert "the checkpoint itself" in convert(first, first, "--overwrite", code=2)
    (tmp_path / "file").touch()
    assert "is a file" in convert(first, tmp_path / "file", code=2)
    (tmp_path / "empty" / "thesis.tex").touch()
    assert "thesis.tex, which is no part" in convert(first, tmp_path / "empty", "--overwrite", code=2)


def test_a_failure_leaves_no_half_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = native(tmp_path / "mine", "alibi")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "replace", full)
    assert "No space left" in convert(folder, tmp_path / "out", code=1)
    monkeypatch.undo()
    assert [each.name for each in tmp_path.iterdir()] == ["mine"]
