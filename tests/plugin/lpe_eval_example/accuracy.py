"""Accuracy of the first guess, from its spec to a table: an item is a document, its total the right guesses."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from lpe_eval.data.batch import batch_of
from lpe_eval.data.corpus import open_corpus
from lpe_eval.measure.device import pick_device
from lpe_eval.measure.facts import planned_facts
from lpe_eval.measure.plan import plan_models, work
from lpe_eval.measure.progress import Advance
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.records import Item, ItemCell, ItemKey
from lpe_eval.run import Outcome, Planned, Settings, run_cells
from lpe_eval.spec.corpus_spec import CorpusSpec
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.spec.protocol_spec import ProtocolSpec
from lpe_eval.table import Facts
from lpe_eval_example.accuracy_spec import AccuracySpec


def run_spec(spec: AccuracySpec, settings: Settings) -> Outcome:
    """Measures every model of `spec` at every length on the same text."""
    options = LoadOptions(pick_device(spec.device))
    text = PerplexitySpec(
        models=spec.models, corpus=CorpusSpec.parse(spec.data), protocols=(ProtocolSpec(name="nonoverlap"),),
        lengths=spec.lengths, max_tokens=spec.max_tokens, seed=spec.seed,
    )  # fmt: skip
    corpus = open_corpus(text.corpus)
    planned = {each.peek.name: each for each in plan_models(text, corpus, options)}
    models = [
        Planned(name, planned_facts(each), {plan.length: work(plan) for plan in each.plans})
        for name, each in planned.items()
    ]
    common = Facts("", None, "accuracy", 1, corpus.label, corpus.split, spec.seed, "float32", options.device.type)

    def measure(name: str, lengths: Sequence[int], advance: Advance) -> Iterator[ItemCell]:
        each = planned[name]
        model = each.located.load_planned(options, each.peek)
        facts = replace(common, encoding=model.facts.encoding, train_length=model.facts.train_length)
        for plan in [plan for plan in each.plans if plan.length in lengths]:
            right: dict[int, list[int]] = {}
            for window in [window for windows in plan.windows.values() for window in windows]:
                batch = batch_of([window], each.selection.documents, each.tokenizer.bos_id, model.device)
                with torch.no_grad():
                    hidden = model.hidden(batch.tokens, window.n_scored, torch.Generator().manual_seed(spec.seed))
                    guesses = model.logits(hidden[0]).argmax(-1)
                hits = int((guesses == batch.targets[0, -window.n_scored :]).sum())
                right.setdefault(window.document, []).append(hits)
                right[window.document].append(window.n_scored)
            documents = each.selection.documents
            items = [
                Item(documents[at].name, documents[at].digest, float(sum(counts[::2])), sum(counts[1::2]))
                for at, counts in right.items()
            ]
            advance(work(plan), f"{name} at {plan.length}")
            yield ItemCell(ItemKey(name, plan.length), facts, {"first_guess": items}, attention=model.attention)

    return run_cells(spec, settings, models, common, measure, {"text": planned_facts(next(iter(planned.values())))})
