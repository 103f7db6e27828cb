"""Parts of long lengths: whole batches, each window once, and sums that are those of the length."""

import json
import math
import random
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import lpe_eval.measure.parts as cutting
from lpe_eval.data.corpus import open_corpus
from lpe_eval.measure.batches import Texts, batches_of, fed, spans_of
from lpe_eval.measure.by_length import measure
from lpe_eval.measure.parts import measure_part, parts_of, put_together, with_leak
from lpe_eval.measure.plan import plan_models, work, work_per_token
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.part_records import CellPart, PartName, PartSums, numbered
from lpe_eval.report.folders.parts import PartStore
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.table import BlockSum, CellKey, Facts, PositionSum
from tests.support.native_checkpoints import checkpoint
from tests.support.small_ppl import TEXT

BATCH = 128
OPTIONS = LoadOptions(torch.device("cpu"), torch.float32, "auto")
FACTS = Facts("alibi", 32, "custom", 0, "text", "test", 0, "float32", "cpu")


@pytest.fixture
def planned(tmp_path: Path):
    """A model with the plans of its windows at 16 and 32, in two protocols."""
    folder = tmp_path / "text" / "test"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.txt").write_text(TEXT[number * 301 : number * 301 + 300])
    spec = PerplexitySpec.model_validate(
        {"models": [str(checkpoint(tmp_path / "tiny"))], "lengths": [16, 32], "max_tokens": 700,
         "protocols": [{"name": "nonoverlap"}, {"name": "sliding"}], "tokenizer": "bytes",
         "corpus": {"name": "local", "path": str(tmp_path / "text"), "split": "test"}}
    )  # fmt: skip
    (found,) = plan_models(spec, open_corpus(spec.corpus), OPTIONS)
    return found


def test_a_length_within_the_budget_is_one_part(planned):
    (part,) = parts_of("tiny", planned.plans[0], BATCH)
    assert (part.name.number, part.name.total, part.work) == (0, 1, work(planned.plans[0]))


@pytest.mark.parametrize("budget", [1, 300, 1000])
def test_parts_are_whole_batches_in_their_order(planned, monkeypatch: pytest.MonkeyPatch, budget: int):
    monkeypatch.setattr(cutting, "PART_WORK", budget)
    for plan in planned.plans:
        parts = parts_of("tiny", plan, BATCH)
        spans = [span for part in parts for span in part.spans]
        kinds = batches_of(spans_of(plan))
        assert spans == [span for each in kinds.values() for span in each], "each window once, in the order of feeding"
        batches = [
            set(each[at : at + max(1, BATCH // tokens)])
            for (tokens, _), each in kinds.items()
            for at in range(0, len(each), max(1, BATCH // tokens))
        ]
        assert all(any(batch <= set(part.spans) for part in parts) for batch in batches)
        assert [part.tokens for part in parts] == [sum(map(fed, part.spans)) for part in parts]
        # No part is larger than the budget unless it is a single batch, and none could have taken the next batch.
        for part, after in zip(parts, [*parts[1:], None], strict=True):
            held = [batch for batch in batches if batch <= set(part.spans)]
            assert part.work <= budget + len(held) or len(held) == 1
            if after is not None:
                first = next(batch for batch in batches if batch <= set(after.spans))
                more = sum(map(fed, first)) * work_per_token(plan.length)
                assert part.work + more > budget - len(held) - 1


@pytest.mark.parametrize("budget", [150, 900])
def test_the_sums_of_parts_are_those_of_the_length(
    planned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, budget: int
):
    model = planned.located.load(OPTIONS)
    store = PartStore(tmp_path, "run", private=True)
    for plan in planned.plans:
        whole = list(
            measure(model, planned.selection.documents, [plan], FACTS, bos_id=None, batch_tokens=BATCH, seed=0,
                    advance=lambda done: None)
        )  # fmt: skip
        with monkeypatch.context() as changed:
            changed.setattr(cutting, "PART_WORK", budget)
            parts = parts_of("tiny", plan, BATCH)
        assert len(parts) > 1
        texts = Texts(planned.selection.documents, None, plan.length)
        for part in reversed(parts):
            sums = measure_part(model, texts, plan, part, FACTS, "", BATCH, lambda done: None, False, store.save_tokens)
            store.save(sums)
            assert store.read(part.name) == sums, "the same numbers are read back"
        found = [store.read(part.name) for part in parts]
        together = list(put_together([each for each in found if each is not None], plan.windows))
        for one, other in zip(whole, together, strict=True):
            assert (one.key, one.status, one.note) == (other.key, other.status, other.note)
            assert one.attention == other.attention
            for name in ("blocks", "positions"):
                left, right = getattr(one, name), getattr(other, name)
                exact = [tuple(value for value in each if not isinstance(value, float)) for each in left]
                assert exact == [tuple(value for value in each if not isinstance(value, float)) for each in right]
                for a, b in zip(left, right, strict=True):
                    assert math.isclose(a.nll_nats, b.nll_nats, rel_tol=1e-12)
            assert one.cost is not None and other.cost is not None
            counted = ("n_forward_tokens", "n_windows", "n_shared_windows", "batch_tokens")
            assert [getattr(one.cost, name) for name in counted] == [getattr(other.cost, name) for name in counted]


def test_a_part_without_a_value_leaves_the_length_without_one(planned, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cutting, "PART_WORK", 300)
    (plan, _), model = planned.plans, planned.located.load(OPTIONS)
    texts = Texts(planned.selection.documents, None, plan.length)
    made = [
        measure_part(model, texts, plan, part, FACTS, "it leaks", BATCH, lambda done: None, False, None)
        for part in parts_of("tiny", plan, BATCH)[:2]
    ]
    (found, _) = put_together([made[0], replace(made[1], status="failed", note="broken", cells=())], plan.windows)
    assert (found.status, found.note, found.blocks, found.cost) == ("failed", "broken", (), None)
    assert with_leak(found, "it leaks") == "broken"


def test_a_damaged_part_counts_as_not_made(planned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(cutting, "PART_WORK", 300)
    (plan, _), model = planned.plans, planned.located.load(OPTIONS)
    part = parts_of("tiny", plan, BATCH)[0]
    texts = Texts(planned.selection.documents, None, plan.length)
    store = PartStore(tmp_path, "run", private=False)
    store.save(measure_part(model, texts, plan, part, FACTS, "", BATCH, lambda done: None, False, None))
    path = store.path(part.name)
    assert store.read(part.name) is not None and PartStore(tmp_path, "other", False).read(part.name) is None
    whole = path.read_bytes()
    for content in (b"", whole[:200], whole.replace(b'"blocks"', b'"blocs"').replace(b'"cells": [', b'"cells": [3, ')):
        path.write_bytes(content)
        assert store.read(part.name) is None


def test_a_part_of_an_earlier_version_is_read(planned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(cutting, "PART_WORK", 300)
    (plan, _), model = planned.plans, planned.located.load(OPTIONS)
    part = parts_of("tiny", plan, BATCH)[1]
    texts = Texts(planned.selection.documents, None, plan.length)
    store = PartStore(tmp_path, "run", private=False)
    sums = measure_part(model, texts, plan, part, FACTS, "", BATCH, lambda done: None, False, None)
    store.save(sums)
    content = json.loads(store.path(part.name).read_text())
    for cell in content["cells"]:
        names = {number: (name, digest) for number, name, digest in cell[1].pop("documents")}
        rows = zip(*cell[1].values(), strict=True)
        cell[1] = [[document, [*names[document], *block]] for document, *block in rows]
    assert any(cell[1] for cell in content["cells"])
    store.path(part.name).write_text(json.dumps(content))
    assert store.read(part.name) == sums


@pytest.mark.parametrize("at_once", [1, 7, 1 << 16])
def test_sums_grow_by_one_part_after_another_and_no_part_is_kept(monkeypatch: pytest.MonkeyPatch, at_once: int):
    monkeypatch.setattr(cutting, "_AT_ONCE", at_once)
    draw, key, alive = random.Random(0), CellKey("m", "sliding", 16, 8), []

    def parts() -> Iterator[PartSums]:
        for number in range(40):
            found = sorted({(draw.randrange(3), draw.randrange(4)) for _ in range(4)})
            blocks = [(one, BlockSum(f"d{one % 2}", "0", two, draw.uniform(0, 1), 3, 5, 0)) for one, two in found]
            positions = tuple(PositionSum(at, at, draw.uniform(0, 1), 2) for at in sorted({draw.randrange(1, 9)}))
            made = CellPart(key, numbered(blocks), positions, 0.1, 0.5, 1, 0)
            for document, block in blocks:
                before = expected.get((document, block.block))
                expected[document, block.block] = block if before is None else before._replace(
                    nll_nats=before.nll_nats + block.nll_nats, n_tokens=before.n_tokens + 3,
                    n_bytes=before.n_bytes + 5,
                )  # fmt: skip
            for each in positions:
                contexts[each.context_from] = contexts.get(each.context_from, 0.0) + each.nll_nats
            sums = PartSums(PartName("m", 16, number, 40, ""), FACTS, "sdpa", "ok", "", "", 1.0, 16, (made,))
            alive.append(weakref.ref(sums))
            del made
            yield sums
            assert sum(each() is not None for each in alive) <= 2, "of the parts before this one, none is held"

    expected: dict[tuple[int, int], BlockSum] = {}
    contexts: dict[int, float] = {}
    (found,) = put_together(parts(), [key])
    assert len(alive) == 40
    assert list(found.blocks) == [expected[place] for place in sorted(expected)], "to the bit, document by document"
    assert [(each.context_from, each.nll_nats) for each in found.positions] == sorted(contexts.items())
