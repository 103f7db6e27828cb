"""The best possible guess as a part of a run: which windows it scores, and what a corpus may do wrong."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lpe_eval.data.corpus import Corpus, Document, Optimum, open_corpus
from lpe_eval.errors import SpecError
from lpe_eval.measure.optimum import Best, measure_best, plan_best, without_best
from lpe_eval.measure.plan import Planned, plan_models
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.spec.corpus_spec import CorpusSpec
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.table import Facts, Measurement
from tests.support.known_models import reference

FACTS = Facts("", None, "custom", 0, "coins", "test", 0, "float32", "cpu")


class Coins(Corpus):
    """Somebody's text of a and b, whose best guess is an even one; `losses` may be something else."""

    def __init__(self, losses: Callable[[np.ndarray], object] | None = None) -> None:
        super().__init__(CorpusSpec(name="coins"))
        self.losses = losses or (lambda window: np.full(len(window), math.log(2)))

    def documents(self, split: str) -> Iterator[Document]:
        for number in range(3):
            yield Document(f"{number}", "".join("ab"[(place * place + number) % 7 % 2] for place in range(50)))

    def describe(self) -> dict[str, str]:
        return {}

    def optimum(self) -> Optimum:
        return Optimum("ab", self.losses)  # pyright: ignore[reportArgumentType]


def spec_of(bos: str = "never") -> PerplexitySpec:
    fields = {
        "models": [reference("none", "uniform")], "corpus": {"name": "coins"}, "lengths": [8, 16], "bos": bos,
        "protocols": [{"name": "nonoverlap"}, {"name": "sliding"}], "max_tokens": 100, "tokenizer": "bytes",
    }  # fmt: skip
    return PerplexitySpec.model_validate(fields)


def planned(corpus: Corpus, bos: str = "never") -> list[Planned]:
    return plan_models(spec_of(bos), corpus, LoadOptions(tokenizer="bytes"))


def measured(best: Best) -> list[Measurement]:
    return list(measure_best(best, FACTS, lambda plan: None, lambda length: None))


@pytest.mark.parametrize("bos", ["never", "always"])
def test_it_scores_the_windows_of_the_models_and_costs_what_it_says(bos: str) -> None:
    corpus = Coins()
    models = planned(corpus, bos)
    (best,) = plan_best(spec_of(bos), corpus, models)
    assert [list(plan.windows.values()) for plan in best.plans] == [
        list(plan.windows.values()) for plan in models[0].plans
    ]
    found = measured(best)
    assert [each.key for each in found] == [key for plan in best.plans for key in plan.windows]
    for each in found:
        scored = sum(window.n_scored for plan in best.plans for window in plan.windows.get(each.key, ()))
        assert sum(block.n_tokens for block in each.blocks) == scored
        assert sum(block.nll_nats for block in each.blocks) == pytest.approx(scored * math.log(2), abs=1e-12)
        assert sum(position.n_tokens for position in each.positions) == scored
        assert (each.status, each.facts.encoding, each.facts.dtype) == ("ok", "optimum", "float64")


def test_models_that_are_asked_other_windows_have_an_optimum_of_their_own() -> None:
    corpus = Coins()
    models = [*planned(corpus), *planned(corpus), *planned(corpus, "always")]
    assert [each.peek.name for each in plan_best(spec_of(), corpus, models)] == ["optimum", "optimum (bytes)"]


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [(lambda window: window[:-1], "losses of the shape"), (lambda window: 1 / 0, "division by zero")],
)
def test_what_a_corpus_does_wrong_costs_the_cells_of_the_optimum_alone(
    losses: Callable[[np.ndarray], object], sentence: str
) -> None:
    corpus = Coins(losses)
    (best,) = plan_best(spec_of(), corpus, planned(corpus))
    found = measured(best)
    assert len(found) == 4
    assert {each.status for each in found} == {"failed"}
    assert all(sentence in each.note for each in found)


def test_ordinary_text_has_no_optimum_and_nothing_to_say_of_it(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("ab" * 40)
    corpus = open_corpus(CorpusSpec.parse(str(tmp_path / "text.txt")))
    models = planned(corpus)
    assert plan_best(spec_of(), corpus, models) == []
    assert without_best(spec_of(), corpus, models) == []


def test_a_name_is_taken() -> None:
    corpus = Coins()
    (model,) = planned(corpus)
    taken = model._replace(peek=model.peek._replace(name="optimum"))
    with pytest.raises(SpecError, match="a model is called 'optimum'"):
        plan_best(spec_of(), corpus, [taken])
