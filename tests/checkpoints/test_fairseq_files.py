"""Files of fairseq that are damaged, hostile, or not what their flags say."""

import os
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from lpe_eval.errors import CheckpointError, UnknownName
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.checkpoints.fairseq import Fairseq
from lpe_eval.model.checkpoints.gpt_neox import GptNeox
from tests.support.fairseq_models import opened
from tests.support.fairseq_reference import (
    WORDS,
    flags,
    normal,
    write,
)


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
