"""Models of one's own, from a file or a module: `py:FILE:FACTORY` and `py:package.module:FACTORY`."""

import math

import pytest
import torch

from lpe_eval.data.batch import Batch
from lpe_eval.errors import CausalLeakError, CheckpointError, LengthError, SpecError
from lpe_eval.measure.probe import refuse_leak
from lpe_eval.measure.score import target_losses
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.checkpoints.python import Python

STREAM = torch.randint(256, (2, 65), generator=torch.Generator().manual_seed(3))

SOURCE = '''
import torch
from torch import nn


class Averager(nn.Module):
    """A causal model: the running mean of embeddings, and a head."""

    train_length = 32
    encoding = "running mean"

    def __init__(self, width, seed, symbols=256):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(symbols, width, generator=draw))
        self.drop = nn.Dropout(0.5)

    def forward(self, tokens):
        count = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)[:, None]
        return self.drop(self.table[tokens].cumsum(1) / count) @ self.table.T


class Split(Averager):
    def hidden(self, tokens):
        count = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)[:, None]
        return self.table[tokens].cumsum(1) / count

    def head(self, states):
        return states @ self.table.T


class Plain:
    """No torch module at all."""

    tokenizer = "bytes"
    name = "uniform"
    vocab_size = 256
    n_parameters = 7

    def hidden(self, tokens):
        return torch.zeros(*tokens.shape, 3)

    def head(self, states):
        return torch.zeros(len(states), 256)


def make(width=8, seed=1, symbols=256):
    return Averager(width, seed, symbols)


def split(width=8, seed=1):
    return Split(width, seed)


def plain():
    return Plain()


def peeking():
    model = make()
    model.forward = lambda tokens: model.table[tokens.flip(1)] @ model.table.T
    return model
'''


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def opened(reference: str, **options):
    return locate(f"py:{reference}").load(LoadOptions(**options))


def losses(model):
    batch = Batch(STREAM[:, :-1], STREAM[:, 1:], torch.arange(64).expand(2, -1) >= 40)
    return target_losses(model, batch, torch.Generator().manual_seed(0))


def test_a_module_and_its_halves_give_the_losses_computed_by_hand(file):
    model = opened(f"{file}:make?width=8&seed=4")
    table = torch.randn(256, 8, generator=torch.Generator().manual_seed(4))
    mean = table[STREAM[:, :-1]].cumsum(1) / torch.arange(1, 65)[:, None]
    expected = torch.nn.functional.cross_entropy((mean @ table.T).mT, STREAM[:, 1:], reduction="none")[:, 40:]
    assert torch.allclose(losses(model), expected, atol=1e-5)
    assert torch.allclose(losses(opened(f"{file}:split?seed=4")), expected, atol=1e-5)


def test_attributes_become_facts_and_the_rest_has_defaults(file):
    facts = opened(f"{file}:make?width=16").facts
    assert (facts.name, facts.format, facts.encoding) == ("mine:make?width=16", "python", "running mean")
    assert (facts.train_length, facts.vocab_size, facts.tokenizer) == (32, 256, "bytes")
    assert facts.n_parameters == 256 * 16
    facts = opened(f"{file}:plain").facts
    assert (facts.name, facts.encoding, facts.train_length, facts.n_parameters) == ("uniform", "unknown", None, 7)
    assert losses(opened(f"{file}:plain"))[0, -1].item() == pytest.approx(math.log(256))


def test_hidden_states_are_kept_apart_only_where_the_class_has_both_halves(file):
    tokens = STREAM[:, :10]
    assert opened(f"{file}:split").hidden(tokens, 3, torch.Generator()).shape == (2, 3, 8)
    assert opened(f"{file}:make").hidden(tokens, 3, torch.Generator()).shape == (2, 3, 256)


def test_a_module_is_moved_to_the_dtype(file):
    assert opened(f"{file}:make", dtype=torch.float64).hidden(STREAM, 1, torch.Generator()).dtype == torch.float64


def test_a_model_that_sees_the_future_is_caught_by_the_probe(file):
    refuse_leak(opened(f"{file}:make"))
    with pytest.raises(CausalLeakError):
        refuse_leak(opened(f"{file}:peeking"))


def test_equal_weights_have_equal_digests_and_others_other_ones(file):
    def digest(reference):
        return locate(f"py:{file}:{reference}").peek(LoadOptions()).digest

    assert digest("make?seed=1") == digest("make?seed=1") == opened(f"{file}:make?seed=1").facts.digest
    assert len({digest("make?seed=1"), digest("make?seed=2"), digest("make"), digest("split?seed=1")}) == 4


def test_a_module_of_a_package_is_found_from_the_current_folder(file, monkeypatch):
    package = file.parent / "some_package_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "models.py").write_text("from some_package_of_mine.base import make\n", encoding="utf-8")
    (package / "base.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(file.parent)
    assert opened("some_package_of_mine.models:make?width=4").facts.name == "models:make?width=4"


def test_a_file_can_import_its_neighbour(file):
    (file.parent / "entry_beside_it.py").write_text("from mine import make\n", encoding="utf-8")
    assert opened(f"{file.parent / 'entry_beside_it.py'}:make").facts.vocab_size == 256


def test_a_tokenizer_is_asked_for_unless_bytes_fit(file):
    assert opened(f"{file}:make").facts.tokenizer == "bytes"
    assert opened(f"{file}:make?symbols=300").facts.tokenizer == ""
    assert opened(f"{file}:make?symbols=300", tokenizer="hf:somewhere").facts.tokenizer == "hf:somewhere"


def test_a_length_that_fails_beyond_the_training_length_is_no_error(file):
    file.write_text(
        SOURCE.replace(
            "def forward(self, tokens):", "def forward(self, tokens):\n        torch.zeros(40)[tokens.shape[1] - 1]"
        )
        + "\ndef broken():\n    model = make()\n    model.train_length = 4096\n    return model\n",
        encoding="utf-8",
    )  # fmt: skip
    model = opened(f"{file}:make")
    model.hidden(STREAM[:, :32], 1, torch.Generator())
    with pytest.raises(LengthError, match="training length is 32"):
        model.hidden(STREAM, 1, torch.Generator())
    with pytest.raises(CheckpointError, match="fails on 65 tokens"):
        opened(f"{file}:broken").hidden(STREAM, 1, torch.Generator())


def test_a_token_beyond_the_vocabulary_is_told_in_a_sentence(file):
    with pytest.raises(CheckpointError, match="id 256"):
        opened(f"{file}:make").hidden(torch.full((1, 4), 256), 1, torch.Generator())


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("nothing.py:make", "no file"),
        ("{file}", "names no function"),
        ("{file}:", "names no function"),
        ("{file}:mak", r"no function mak; it has: Averager, .*make"),
        ("{file}:make?widht=3", "widht"),
        ("{file}:make?width=wide", "TypeError"),
        ("no_such_package.models:make", "ModuleNotFoundError"),
        ("some/folder:make", "no file that ends in"),
    ],
)
def test_what_is_not_there_is_told_in_a_sentence(reference, told, file):
    with pytest.raises(CheckpointError, match=told) as caught:
        opened(reference.format(file=file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def make(:", r"SyntaxError"),
        ("1 / 0", r"cannot be imported: ZeroDivisionError: division by zero \(hostile.py, line 1\)"),
        ("def make():\n    raise ValueError('two\\nlines')", r"fails: ValueError: two \(hostile.py, line 2\)"),
        ("def make():\n    return 3", "returned int"),
        ("def make():\n    return None", "returned NoneType"),
        ("def make():\n    return lambda tokens: tokens", r"floating numbers of the shape \[2, 5, any\]"),
        ("def make():\n    return lambda tokens: None", "not NoneType"),
        ("def make():\n    return lambda tokens: tokens[:, 1:, None].float()", r"\[2, 4, 1\]"),
        ("def make():\n    return lambda tokens: 1 / 0", "fails on a short text: ZeroDivisionError"),
        (
            "class A:\n  def hidden(self, t):\n    return t[..., None].float()\n"
            "  def head(self, s):\n    return s[:3]\ndef make():\n  return A()",
            r"head\(states\)",
        ),
        (
            "import torch\nclass A:\n  vocab_size = 5\n"
            "  def __call__(self, t):\n    return torch.zeros(*t.shape, 256)\nmake = A",
            "says vocab_size 5 and makes 256",
        ),
        (
            "import torch\nclass A:\n  train_length = 'long'\n  def __call__(self, t):\n"
            "    return torch.zeros(*t.shape, 256)\nmake = A",
            "train_length must be of type int",
        ),
    ],
)
def test_code_that_does_not_work_is_told_in_a_sentence(code, told, tmp_path):
    file = tmp_path / "hostile.py"
    file.write_text(code, encoding="utf-8")
    with pytest.raises(CheckpointError, match=told) as caught:
        opened(f"{file}:make")
    assert "\n" not in str(caught.value)


def test_a_bare_file_runs_nothing(tmp_path):
    marker = tmp_path / "executed"
    (tmp_path / "model.py").write_text(f"open({str(marker)!r}, 'w')\n", encoding="utf-8")
    located = locate(str(tmp_path / "model.py"))
    assert located.format is Python
    with pytest.raises(CheckpointError, match="names no function"):
        located.peek(LoadOptions())
    assert not marker.exists()


def test_options_it_would_ignore_are_refused(file):
    for options in (LoadOptions(rope_scaling="yarn:4"), LoadOptions(rope_theta=5e5), LoadOptions(revision="main")):
        with pytest.raises(SpecError, match="has no effect"):
            locate(f"py:{file}:make").peek(options)
