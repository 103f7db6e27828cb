"""The card of a trained checkpoint: what a stranger must know before relying on it."""

from collections.abc import Sequence
from typing import Any

from lpe_eval.records import LogRow
from lpe_eval.spec.train_spec import TrainSpec

FLAT = 0.01
"""A validation curve is called flat if the last tenth of the steps lowered the loss by less than this share."""


def last_tenth(rows: Sequence[LogRow]) -> float | None:
    """By which share the last tenth of the steps lowered the validation loss; None where that was not measured."""
    measured = [(row.step, row.valid_nll_nats) for row in rows if row.valid_nll_nats is not None]
    before = [loss for step, loss in measured if step <= 0.9 * measured[-1][0]]
    if not before or len(measured) < 10:
        return None
    return 1 - measured[-1][1] / before[-1]


def model_card(spec: TrainSpec, rows: Sequence[LogRow], provenance: dict[str, Any]) -> str:
    """The card as Markdown.

    Args:
        spec: the recipe.
        rows: the whole log.
        provenance: of the training, as `provenance.json` holds it.
    """
    environment, corpus = provenance["environment"], provenance["corpus"]
    share, final = last_tenth(rows), rows[-1].valid_nll_nats
    if share is None:
        curve = "How flat its validation curve is was not measured."
    elif share < FLAT:
        curve = f"Its validation curve has flattened: the last tenth of the steps lowered the loss by {share:.2%}."
    else:
        curve = (
            f"Its validation curve **has not flattened**: the last tenth of the steps lowered the loss by {share:.2%}."
        )
    loss = "not measured" if final is None else f"{final:.4f} nats a token"
    described = ", ".join(f"{key} {value}" for key, value in sorted(corpus["describe"].items()))
    shape = spec.model
    return f"""# {spec.name}

A reference model for measuring what happens beyond the training length. It is not meant to write text.

| | |
|---|---|
| encoding | `{shape.encoding}` |
| shape | {shape.layers} layers, width {shape.width}, {shape.heads} heads, MLP {shape.mlp_width}, {spec.tokenizer} |
| train length | {shape.train_length} tokens |
| text | {spec.corpus.name}, split train ({described}) |
| fingerprint of the text | `{corpus["train"]}` |
| steps | {spec.steps:,} of {spec.batch_tokens:,} tokens: {spec.steps * spec.batch_tokens:,} tokens |
| learning rate | {spec.learning_rate:g}, to {spec.final_rate:g} of it along a cosine |
| seed | {spec.seed} |
| precision | products in {spec.compute_dtype}, weights stored in {spec.weights_dtype} |
| hardware | {environment["device"]}, {environment["threads"]} thread{"s" if environment["threads"] != 1 else ""} |
| wall time | {provenance["seconds"] / 60:.0f} minutes |
| validation loss | {loss} at the last step, whose weights these are |
| licence | Apache-2.0 |

{curve}

Limits: one small model, one seed, one kind of text. It says how an encoding behaves at this size and after
this much training, not how it behaves in a large model.
"""
