"""One model of a perplexity run: opened, tried, and measured length by length, a part at a time where one is long.

Whatever foreign code raises costs the cells of its own model.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch

from lpe_eval.errors import CheckpointError, one_sentence
from lpe_eval.measure.batches import Plan, Texts
from lpe_eval.measure.by_length import measure, without_value
from lpe_eval.measure.determinism import is_not_deterministic
from lpe_eval.measure.facts import opened_facts
from lpe_eval.measure.optimum import Best, Scored, measure_best
from lpe_eval.measure.pace import Pace
from lpe_eval.measure.parts import KeepPart, Part, measure_part, put_together, with_leak
from lpe_eval.measure.plan import Planned
from lpe_eval.measure.probe import allowed_leak
from lpe_eval.measure.progress import Tell
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.model.transformer_model import TransformerModel
from lpe_eval.part_records import PartName, PartSums
from lpe_eval.records import KeepTokens, TokenPart
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.table import CellKey, Facts, Measurement

_BATCH_TOKENS, _BATCH_TOKENS_CPU = 16384, 4096
"""Token budget of a batch unless --batch-size says otherwise. What a processor's cache cannot hold makes it slower."""


class Doing(NamedTuple):
    """What a run does with each of its models.

    Attributes:
        spec: what is asked.
        facts: of all rows, before a model is open.
        device: where.
        options: how models are opened.
        opened: what opening each model told, by name; grows.
        pace: told of tokens.
        order: of all cells.
        tell: takes a sentence for the user.
        keep: handed the losses of the targets of a cell; None where nobody keeps them.
        long: the parts of long lengths, by model and length; of a shard, those that are its own.
        kept: reads a part that an earlier start finished.
        keep_part: as `keep`, of a cell in a part.
        in_parts: what was kept of a cell in its parts.
        whole: whether parts become cells here; a shard leaves that to merging.
    """

    spec: PerplexitySpec
    facts: Facts
    device: torch.device
    options: LoadOptions
    opened: dict[str, Any]
    pace: Pace
    order: Sequence[CellKey]
    tell: Tell
    keep: KeepTokens | None
    long: Mapping[tuple[str, int], Sequence[Part]]
    kept: Callable[[PartName], PartSums | None]
    keep_part: KeepPart | None
    in_parts: Callable[[Sequence[PartSums], CellKey], Iterable[TokenPart]]
    whole: bool

    def begin(self, model: str, plan: Plan, part: Part | None = None) -> None:
        """A model is measured at a length from now on."""
        cell = f"cell {self.order.index(next(iter(plan.windows))) + 1} of {len(self.order)}"
        of = "" if part is None else f", part {part.name.number + 1} of {part.name.total}"
        self.pace.begin(model, plan.length, f"{model} at {plan.length}, {cell}{of}")


def batch_tokens(spec: PerplexitySpec, device: torch.device, length: int) -> int:
    """Token budget of a batch."""
    if spec.batch_size != "auto":
        return spec.batch_size * length
    return _BATCH_TOKENS_CPU if device.type == "cpu" else _BATCH_TOKENS


def measure_model(doing: Doing, planned: Scored) -> Iterator[Measurement | PartSums]:
    """The cells of one model as they are finished, and before the cells of a long length its parts.

    A model that cannot be opened, or that sees the future, has failed cells.
    """
    name, facts, pace = planned.peek.name, doing.facts, doing.pace
    if isinstance(planned, Best):
        yield from measure_best(planned, facts, partial(doing.begin, name), partial(pace.pass_over, name))
        return
    try:
        model, leak = _opened(doing, planned)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        # Whatever foreign code raises costs the cells of its own model.
        if is_not_deterministic(error):
            raise
        why = one_sentence(error)
        doing.tell(f"{name} cannot be measured: {why}")
        for plan in planned.plans:
            pace.pass_over(name, plan.length)
            if not doing.whole and (name, plan.length) in doing.long:
                first = doing.long[name, plan.length][0].name
                yield PartSums(first, facts, "", "failed", why, "", 0.0, 0, ())
                continue
            yield from (without_value(key, facts, "", "failed", why) for key in plan.windows)
        return
    facts = replace(facts, encoding=model.facts.encoding, train_length=model.facts.train_length)
    for each in planned.plans:
        if parts := doing.long.get((name, each.length)):
            yield from _in_parts(doing, planned, model, each, parts, facts, leak)
            continue
        doing.begin(name, each)
        for measurement in measure(
            model,
            planned.selection.documents,
            [each],
            facts,
            bos_id=planned.tokenizer.bos_id,
            batch_tokens=batch_tokens(doing.spec, doing.device, each.length),
            seed=doing.spec.seed,
            advance=pace.done,
            adapt=_adapts(doing.spec, model),
            keep=doing.keep,
        ):
            if measurement.cost is None:
                pace.pass_over(name, each.length)
            yield replace(measurement, note=with_leak(measurement, leak))


def _opened(doing: Doing, planned: Planned) -> tuple[LanguageModel, str]:
    """The model, and what is said of it if it may see the future."""
    if planned.why_not:
        raise CheckpointError(planned.why_not)
    name, spec = planned.peek.name, doing.spec
    model = planned.located.load_planned(doing.options, planned.peek)
    leak = allowed_leak(model, spec.lengths, spec.allow_leak)
    doing.opened[name] = opened_facts(model) | ({"leak": leak} if leak else {})
    for sentence in [*model.notes(), *([leak] if leak else [])]:
        doing.tell(f"{name}: {sentence}")
    return model, leak


def _in_parts(
    doing: Doing,
    planned: Planned,
    model: LanguageModel,
    plan: Plan,
    parts: Sequence[Part],
    facts: Facts,
    leak: str,
) -> Iterator[Measurement | PartSums]:
    """A long length; after a part that has no value, the others are not measured."""
    spec, name = doing.spec, planned.peek.name
    texts = Texts(planned.selection.documents, planned.tokenizer.bos_id, spec.seed + plan.length)
    budget, found = batch_tokens(spec, doing.device, plan.length), []
    for part in parts:
        sums = doing.kept(part.name)
        if sums is None or sums.status == "failed":
            doing.begin(name, plan, part)
            sums = measure_part(
                model, texts, plan, part, facts, leak, budget, doing.pace.done, _adapts(spec, model), doing.keep_part
            )
            yield sums
        found.append(sums)
        if sums.status != "ok":
            doing.pace.pass_over(name, plan.length)
            break
    if doing.whole:
        for measurement in put_together(found, plan.windows):
            if doing.keep is not None and measurement.blocks:
                doing.keep(measurement.key, doing.in_parts(found, measurement.key))
            yield replace(measurement, note=with_leak(measurement, leak))


def _adapts(spec: PerplexitySpec, model: LanguageModel) -> bool:
    """Whether batches that are slower than their windows one by one may shrink."""
    return spec.batch_size == "auto" and not spec.deterministic and not isinstance(model, TransformerModel)
