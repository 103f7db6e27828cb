"""Models that people bring as Python modules: what happened to them before, and what happens now.

A row is a case: its number in the collection, the factory, what it did before, what it must do now. Every value has an
oracle: the same model in the form that always worked, or a direct loop.
"""

from typing import NamedTuple

import pytest
import torch

from lpe_eval.errors import CheckpointError, CodeError
from lpe_eval.measure.probe import refuse_leak
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.foreign.own_digest import digest_of
from lpe_eval.model.language_model import LanguageModel
from tests.support.own_models import SYMBOLS, Bigram, Rope, extra, reference

TOKENS = torch.randint(SYMBOLS, (2, 300), generator=torch.Generator().manual_seed(3))


def opened(factory: str, **options):
    return locate(reference(factory)).load(LoadOptions(**options))


def logits(factory: str, tokens=TOKENS, **options):
    model = opened(factory, **options)
    hidden = model.hidden(tokens, tokens.shape[1], torch.Generator())
    return model.logits(hidden.flatten(0, 1)).unflatten(0, tuple(tokens.shape))


class Case(NamedTuple):
    number: str
    factory: str
    before: str


BUFFERS = [
    Case("5", "rope?kind=complex buffer", "the imaginary part was lost, in float32 too"),
    Case("6", "rope?kind=buffer", "frequencies were rounded to the type of the run"),
    Case("6", "rope?kind=double buffer", "frequencies were rounded to float32, and then to the type of the run"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", BUFFERS, ids=lambda case: case.factory)
def test_buffers_keep_their_numbers(case: Case, dtype: torch.dtype):
    """The oracle is the model whose angles are no buffer, which nobody casts."""
    plain = Rope(case.factory.partition("=")[2].replace("buffer", "attribute"))
    for parameter in plain.parameters():
        parameter.data = parameter.data.to(dtype)
    with torch.no_grad():
        assert torch.equal(logits(case.factory, dtype=dtype), plain(TOKENS)), case.before


def test_a_buffer_becomes_wider_as_it_did():
    """Frequencies in float16 run as float32 numbers in a float32 run, as before."""
    plain = Rope("half attribute")
    plain.turns = (10000.0 ** -(torch.arange(0, 16, 2) / 16)).half().float()
    with torch.no_grad():
        assert torch.equal(logits("rope?kind=half buffer"), plain(TOKENS))


def test_only_buffers_that_a_model_cannot_run_with_are_cast():
    """Case 6: a table that is added has to take the type of the run; the frequencies beside it do not."""
    model = opened("rope?kind=buffer&added=true", dtype=torch.bfloat16)
    types = {name: buffer.dtype for name, buffer in model.model.named_buffers()}  # pyright: ignore[reportAttributeAccessIssue]
    assert types == {"turns": torch.float32, "added": torch.bfloat16}
    kept, cast = model.notes()
    assert "bfloat16" in kept and kept.endswith("turns") and cast.endswith("added")
    assert opened("rope?kind=buffer&added=true").notes() == []


@pytest.mark.parametrize("kind", ["dict", "tensor", "bytes", "object"])
def test_extra_states_are_part_of_the_digest(kind: str):
    """Case 14: before, an AttributeError; the digest wanted tensors alone."""
    digests = [
        locate(reference(f"extra?kind={kind}&scale={scale}")).peek(LoadOptions()).digest for scale in (1.0, 1.0, 1.5)
    ]
    assert digests[0] == digests[1]
    # The settings alone would tell them apart, so the weights are compared without them.
    assert digest_of(extra(1.0, kind), b"") == digest_of(extra(1.0, kind), b"") != digest_of(extra(1.5, kind), b"")


RETURNED = [
    *("pair", "loss first", "list", "nested", "attribute", "key", "mapping"),
    *("states first", "two widths, told"),
]


@pytest.mark.parametrize("form", RETURNED)
def test_logits_are_found_in_what_is_returned(form: str):
    """Case 18: before, everything but a tensor was refused."""
    assert torch.equal(logits(f"returns?form={form}"), Bigram().table.detach()[TOKENS])


@pytest.mark.parametrize(("form", "told"), [("two widths", "vocab_size"), ("nothing", "not tuple")])
def test_what_could_be_logits_or_something_else_is_refused(form: str, told: str):
    with pytest.raises(CheckpointError, match=told):
        opened(f"returns?form={form}")


@pytest.mark.parametrize("form", ["nanoGPT", "llama2.c", "flat"])
def test_a_model_that_gives_only_the_last_token_gets_targets(form: str):
    """Before: "must return floating numbers of the shape [2, 5, any]"."""
    assert torch.equal(logits(f"last_only?form={form}"), Bigram().table.detach()[TOKENS])
    assert "targets" in opened(f"last_only?form={form}").notes()[0]


@pytest.mark.parametrize(
    ("factory", "told"),
    [("last_alone", "of the last token only"), ("last_only?form=other", "other ones when it is given targets")],
)
def test_the_last_token_alone_is_not_enough(factory: str, told: str):
    with pytest.raises(CheckpointError, match=told):
        opened(factory)


@pytest.mark.parametrize("chunk", [64, 24])
def test_models_that_want_multiples_of_a_chunk(chunk: int):
    """Case 17: before, our own short text of five tokens failed. A chunk that is no power of two is known by the
    lengths that will be measured."""
    tokens = TOKENS[:, : 4 * chunk]
    assert torch.equal(logits(f"chunked?chunk={chunk}", tokens, lengths=(4 * chunk,)), Bigram().table.detach()[tokens])
    refuse_leak(opened(f"chunked?chunk={chunk}", lengths=(4 * chunk,)), [4 * chunk])
    with pytest.raises(CodeError, match="5 tokens are no multiple of 7"):
        opened("chunked?chunk=7")


def test_the_tokenizer_of_a_model_that_encodes():
    """Before: "has 28 symbols and names no tokenizer"."""
    assert opened("characters").facts.tokenizer == reference("characters")
    assert opened("pair").facts.tokenizer == reference("pair")
    assert opened("characters", tokenizer="hf:x").facts.tokenizer == "hf:x"
    assert opened("other_encode").facts.tokenizer == "bytes"


def test_what_a_model_remembers_of_one_text_moves_no_number_of_another():
    """Architectures 6, of a user's own module: before, a text was scored as the longest one before it was."""

    def logits(model: LanguageModel, length: int) -> torch.Tensor:
        tokens = torch.arange(length)[None] % SYMBOLS
        return model.hidden(tokens, length, torch.Generator())

    table = Bigram().table
    model = opened("remembers")
    for length in (16, 64, 16, 8):
        assert torch.equal(logits(model, length)[0], table[torch.arange(length)] * (8 / length)), length
