"""`inspect` asks a format and its model what they are, and a third party's answers stand beside our own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lpe_eval.commands.inspect import inspect_checkpoint
from lpe_eval.model import checkpoint
from lpe_eval.model.checkpoint import CheckpointFormat, LoadOptions, Located, Peek
from lpe_eval.model.language_model import LanguageModel, ModelFacts, PositionTensor
from lpe_eval.model.weight_files import stored_types
from lpe_eval.spec.ppl_spec import PerplexitySpec


class Silent(LanguageModel):
    """A model that tells nothing of itself beyond its facts."""

    facts = ModelFacts("theirs", "their_format", "their own", 9, 256, "bytes", 3, "0" * 64)
    device, dtype = torch.device("cpu"), torch.float32
    attention = "own"

    def hidden(self, tokens: Tensor, rows: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(*tokens.shape, 256)[:, -rows:]

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden


class Telling(Silent):
    """A model that tells all there is to ask for."""

    mapped = {"their.table": "positions"}

    def architecture(self) -> list[tuple[str, str]]:
        return [("architecture", "a table"), ("rows", "3")]

    def method(self) -> list[tuple[str, str]]:
        return [("method", "counting")]

    def position_tensors(self) -> Iterator[PositionTensor]:
        yield PositionTensor("everywhere", "steps", torch.tensor([1.0, 2.0, 4.0]))


class Theirs(CheckpointFormat):
    """A folder with one file of weights."""

    model: type[LanguageModel] = Telling

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return True

    @classmethod
    def peek(cls, path: str | Path, options: LoadOptions) -> Peek:
        return Peek("theirs", "bytes", "0" * 64)

    @classmethod
    def stored_types(cls, path: str | Path) -> list[str]:
        return stored_types([Path(path) / "their.safetensors"])

    @classmethod
    def load(cls, path: str | Path, options: LoadOptions) -> LanguageModel:
        return cls.model()


class Untold(Theirs):
    """The same, but nobody says what is stored."""

    model = Silent
    stored_types = CheckpointFormat.stored_types


def tables(format: type[CheckpointFormat], folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list]:
    save_file({"table": torch.zeros(3, dtype=torch.bfloat16)}, folder / "their.safetensors")
    monkeypatch.setattr("lpe_eval.commands.inspect.locate", lambda reference: Located(format, folder))
    monkeypatch.setattr(checkpoint, "_format_of", lambda path: format)
    spec = PerplexitySpec.model_validate(
        {
            "models": [str(folder)],
            "corpus": "python-stdlib",
            "protocols": [{"name": "nonoverlap"}],
            "lengths": [64],
            "max_tokens": 600,
        }
    )
    found = inspect_checkpoint(str(folder), spec).tables
    return {table.title: [tuple(map(str, row)) for row in table.rows] for table in found}


def test_what_a_third_party_tells_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = tables(Theirs, tmp_path, monkeypatch)
    facts = dict(found["checkpoint"])
    assert (facts["architecture"], facts["rows"], facts["method"]) == ("a table", "3", "counting")
    assert facts["type on disk"] == "bfloat16"
    assert found["numbers of the encoding, as stored"] == [("everywhere", "steps", "3", "no", "1 2 4")]
    assert found["keys of the file and what they became"] == [("their.table", "positions")]


def test_what_a_third_party_does_not_tell_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = tables(Untold, tmp_path, monkeypatch)
    facts = dict(found["checkpoint"])
    assert facts["architecture"] == "Silent" and "method" not in facts and facts["type on disk"] == "unknown"
    assert "numbers of the encoding, as stored" not in found
    assert "keys of the file and what they became" not in found
