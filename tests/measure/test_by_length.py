"""Losses known in closed form prove the shift, the contexts, the sums and their independence of batching."""

import math

import numpy as np
import pytest
import torch

from lpe_eval.data.selection import EncodedDocument
from lpe_eval.data.windows import Window, plan, resolve
from lpe_eval.errors import CausalLeakError, LengthError
from lpe_eval.measure.by_length import Plan, context_bucket_edges, measure
from lpe_eval.measure.probe import refuse_leak
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.report.numbers.effective_length import effective_length
from lpe_eval.spec.protocol_spec import ProtocolSpec
from lpe_eval.table import CellKey, Facts, Measurement
from tests.support.closed_form import (
    Bigram,
    ClosedForm,
    Copier,
    CountsContext,
    SeesFuture,
    Uniform,
    context_nats,
    document,
)

FACTS = Facts("none", None, "custom", 0, "test", "test", 0, "float32", "cpu")
PROTOCOLS = ("nonoverlap", "sliding", "last", "anchored")


def texts(seed: int = 0, vocab: int = 7, sizes: tuple[int, ...] = (101, 77, 203)) -> list[EncodedDocument]:
    rng = np.random.default_rng(seed)
    return [document(f"d{n}", rng.integers(0, vocab - 1, size)) for n, size in enumerate(sizes)]


def windows_of(
    name: str, length: int, documents: list[EncodedDocument], longest: int, bos: str = "never"
) -> list[Window]:
    protocol = resolve(ProtocolSpec.model_validate({"name": name}), [min(length, 16), longest])
    return plan(protocol, length, [len(each.tokens) for each in documents], bos, "score", longest)  # pyright: ignore[reportArgumentType]


def measured(
    model: LanguageModel,
    documents: list[EncodedDocument],
    lengths: tuple[int, ...] = (16,),
    protocols: tuple[str, ...] = PROTOCOLS,
    bos: str = "never",
    batch_tokens: int = 64,
    bos_id: int | None = None,
) -> dict[tuple[str, int], Measurement]:
    plans = [
        Plan(
            length,
            {
                CellKey("m", name, length, length): windows_of(name, length, documents, max(lengths), bos)
                for name in protocols
            },
        )
        for length in lengths
    ]
    found = measure(
        model, documents, plans, FACTS, bos_id=bos_id, batch_tokens=batch_tokens, seed=0, advance=lambda done: None
    )
    return {(each.key.protocol, each.key.length): each for each in found}


def total(measurement: Measurement) -> tuple[float, int]:
    return (
        math.fsum(block.nll_nats for block in measurement.blocks),
        sum(block.n_tokens for block in measurement.blocks),
    )


@pytest.mark.parametrize("window", [32, 128])
def test_a_copier_with_a_window_makes_use_of_as_much_context(window: int):
    """Each text has parts that repeat themselves after so many tokens, each of symbols of its own."""
    lengths, periods, draw = (32, 64, 128, 160), (20, 45, 100), np.random.default_rng(0)
    documents = []
    for number in range(8):
        parts = [np.tile(100 * place + draw.permutation(period), 20)[:250] for place, period in enumerate(periods)]
        documents.append(document(f"text {number}", np.concatenate(parts)))
    found = measured(Copier(300, window), documents, lengths, ("anchored",), batch_tokens=2000)
    effective = effective_length({length: found["anchored", length].blocks for length in lengths})
    assert (effective.length, effective.low, effective.high) == (window, window, window)


def test_a_uniform_model_makes_use_of_no_context_beyond_the_shortest_length():
    found = measured(Uniform(7), texts(sizes=(300,) * 8), (16, 32, 64), ("anchored",))
    effective = effective_length({length: found["anchored", length].blocks for length in (16, 32, 64)})
    assert (effective.length, effective.high, effective.gain) == (16, 16, 0.0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_uniform_model_spends_the_logarithm_of_the_vocabulary(protocol: str):
    nats, count = total(measured(Uniform(7), texts())[protocol, 16])
    assert count > 0
    assert nats / count == pytest.approx(math.log(7), rel=1e-6)


def test_a_bigram_model_is_charged_for_each_transition_of_the_text():
    table = torch.rand(7, 7, generator=torch.Generator().manual_seed(1)) + 0.1
    table = table / table.sum(1, keepdim=True)
    documents = texts()
    expected = sum(
        -math.log(table[int(a), int(b)])
        for each in documents
        for a, b in zip(each.tokens, each.tokens[1:], strict=False)
    )
    for protocol in ("nonoverlap", "sliding"):
        nats, count = total(measured(Bigram(table), documents)[protocol, 16])
        assert count == sum(len(each.tokens) - 1 for each in documents)
        assert nats == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("bos", ["never", "always", "first-window"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_context_of_every_target_can_be_read_off_the_loss(protocol: str, bos: str):
    documents = texts()
    cell = measured(CountsContext(7), documents, (16, 32), bos=bos, bos_id=0)[protocol, 16]
    windows = windows_of(protocol, 16, documents, 32, bos)
    contexts = np.concatenate([np.arange(w.score_from, w.stop) - w.start + w.bos for w in windows])
    nats, count = total(cell)
    assert count == len(contexts)
    expected = float(context_nats(torch.from_numpy(contexts).double()).sum()) + count * math.log(6)
    assert nats == pytest.approx(expected, rel=1e-6)
    for bucket in cell.positions:
        here = (contexts >= bucket.context_from) & (contexts <= bucket.context_to)
        assert bucket.n_tokens == here.sum()
        in_bucket = float(context_nats(torch.from_numpy(contexts[here]).double()).sum()) + here.sum() * math.log(6)
        assert bucket.nll_nats == pytest.approx(in_bucket, rel=1e-6)


def test_anchored_scores_the_same_targets_at_every_length_with_more_context():
    cells = measured(CountsContext(7), texts(), (16, 32, 64), ("anchored",))
    counts = {total(cell)[1] for cell in cells.values()}
    blocks = {tuple((b.document, b.block, b.n_tokens, b.n_bytes) for b in cell.blocks) for cell in cells.values()}
    assert len(counts) == len(blocks) == 1
    means = [total(cells["anchored", length])[0] / counts.copy().pop() for length in (16, 32, 64)]
    assert means[1] - means[0] == pytest.approx(16 / 1000, rel=1e-4)
    assert means[2] - means[1] == pytest.approx(32 / 1000, rel=1e-4)


def test_sliding_by_a_whole_length_is_nonoverlap_to_the_last_bit():
    documents = texts()
    sizes = [len(each.tokens) for each in documents]
    whole = ProtocolSpec(name="sliding", stride=16)
    assert plan(whole, 16, sizes, "never", "score", 16) == plan(
        ProtocolSpec(name="nonoverlap"), 16, sizes, "never", "score", 16
    )


@pytest.mark.parametrize("batch_tokens", [1, 16, 48, 1000])
def test_the_batch_changes_nothing(batch_tokens: int):
    documents = texts()
    reference = measured(CountsContext(7), documents, batch_tokens=64)
    for key, cell in measured(CountsContext(7), documents, batch_tokens=batch_tokens).items():
        assert cell.blocks == reference[key].blocks
        assert cell.positions == reference[key].positions


def test_the_order_and_the_company_of_lengths_change_nothing():
    documents = texts()
    together = measured(CountsContext(7), documents, (64, 16, 32), ("nonoverlap", "sliding"))
    for length in (16, 32, 64):
        alone = measured(CountsContext(7), documents, (length,), ("sliding",))
        assert alone["sliding", length].blocks == together["sliding", length].blocks


def test_protocols_share_the_windows_they_have_in_common():
    cells = measured(Uniform(7), texts(sizes=(129,)), (16,), ("nonoverlap", "sliding"))
    plain, sliding = cells["nonoverlap", 16].cost, cells["sliding", 16].cost
    assert plain is not None and sliding is not None
    assert plain.n_shared_windows == plain.n_windows == 8
    assert (sliding.n_shared_windows, sliding.n_windows) == (8, 15)
    assert plain.n_forward_tokens + sliding.n_forward_tokens == 15 * 16


class _RunsOutOfMemory(CountsContext):
    """Fails like an allocator for more than a number of windows at once."""

    def __init__(self, vocab_size: int, most: int) -> None:
        super().__init__(vocab_size)
        self.most, self.failures = most, 0

    def all_logits(self, tokens):
        if len(tokens) > self.most:
            self.failures += 1
            raise torch.OutOfMemoryError("out of memory")
        return super().all_logits(tokens)


def test_when_memory_runs_out_the_batch_halves_and_the_result_stays():
    documents = texts()
    model = _RunsOutOfMemory(7, most=1)
    found = measured(model, documents, protocols=("nonoverlap",))
    assert model.failures == 2
    assert found["nonoverlap", 16].blocks == measured(CountsContext(7), documents)["nonoverlap", 16].blocks


def test_a_single_window_that_does_not_fit_is_a_failed_cell():
    cell = measured(_RunsOutOfMemory(7, most=0), texts(), protocols=("nonoverlap",))["nonoverlap", 16]
    assert (cell.status, cell.blocks) == ("failed", ())
    assert "out of memory with a single window of 16 tokens" in cell.note


class _EndsAt(Uniform):
    def hidden(self, tokens, rows, generator):
        if tokens.shape[1] > 16:
            raise LengthError("the table has 16 positions")
        return super().hidden(tokens, rows, generator)


def test_a_length_beyond_the_models_positions_is_not_available_and_the_others_are():
    cells = measured(_EndsAt(7), texts(), (16, 32), ("nonoverlap",))
    assert cells["nonoverlap", 16].status == "ok"
    assert (cells["nonoverlap", 32].status, cells["nonoverlap", 32].note) == ("n/a", "the table has 16 positions")


class _Overflows(Uniform):
    def all_logits(self, tokens):
        logits = super().all_logits(tokens).clone()
        logits[..., 3] = torch.where(tokens == 2, float("inf"), 0.0)
        return logits


def test_targets_without_a_finite_loss_are_counted_and_never_dropped():
    documents = texts()
    cell = measured(_Overflows(7), documents, protocols=("nonoverlap",))["nonoverlap", 16]
    after_two = sum(int((each.tokens[:-1] == 2).sum()) for each in documents)
    assert cell.status == "error"
    assert sum(block.n_nonfinite for block in cell.blocks) == after_two > 0
    assert total(cell)[1] == sum(len(each.tokens) - 1 for each in documents)


def test_a_model_that_sees_the_future_is_refused():
    with pytest.raises(CausalLeakError, match="sees the future"):
        refuse_leak(SeesFuture(7))


@pytest.mark.parametrize("model", [Uniform(7), CountsContext(7), Bigram(torch.full((5, 5), 0.2))])
def test_models_that_do_not_are_let_through(model: ClosedForm):
    refuse_leak(model)


def test_context_buckets_cover_every_size_once():
    edges = context_bucket_edges(5000)
    assert edges[0] == 1 and (np.diff(edges) > 0).all() and edges[-1] <= 5000
    assert list(edges[:16]) == list(range(1, 17))
    assert list(context_bucket_edges(3)) == [1, 2, 3]
