"""What a reader of the numbers should know of the text, in sentences: what was passed over, unknown or missing."""

from collections.abc import Sequence
from typing import Any

from lpe_eval.data.corpus import Corpus
from lpe_eval.data.selection import Selection
from lpe_eval.measure.plan import Planned
from lpe_eval.spec.ppl_spec import PerplexitySpec


def remarks(spec: PerplexitySpec, corpus: Corpus, planned: Sequence[Planned]) -> list[str]:
    """Sentences about the text of a planned run, each once."""
    said = corpus.remarks()
    for each in planned:
        chosen, name = each.selection, each.tokenizer.name
        if chosen.missing:
            said.append(_shortfall(spec, chosen))
        if chosen.n_without_text:
            said.append(f"{chosen.n_without_text:,} rows hold no text (null) and were passed over")
        if chosen.n_unknown:
            share = 100 * chosen.n_unknown / chosen.n_tokens
            said.append(
                f"{chosen.n_unknown:,} of {chosen.n_tokens:,} tokens ({share:.2g} %) stand for what the tokenizer "
                f"{name} does not know; their loss says nothing about the text"
            )
        if each.tokenizer.prefix:
            fed = "with the first of them alone" if each.tokenizer.adds_bos else "without them"
            said.append(
                f"the tokenizer {name} puts {' '.join(each.tokenizer.prefix)} before a text; a window has room for "
                f"one such token, so that windows start {fed}, and values may be worse than the model's own"
            )
    return list(dict.fromkeys(said))


def selection_facts(chosen: Selection) -> dict[str, Any]:
    """The same numbers for a provenance; those that are zero are left out."""
    found = {
        "tokens_missing": chosen.missing,
        "documents_without_text": chosen.n_without_text,
        "tokens_unknown": chosen.n_unknown,
    }
    return {name: number for name, number in found.items() if number}


def _shortfall(spec: PerplexitySpec, chosen: Selection) -> str:
    given = f"the text gives {chosen.n_tokens:,} of the {spec.max_tokens:,} tokens asked for"
    if spec.pack:
        return f"{given}, which is all it has; add text, or lower --max-tokens"
    longest = max(spec.lengths)
    short = chosen.n_seen - chosen.n_without_text - chosen.n_eligible
    if not short:
        return f"{given}, which is all it has; add text, or lower --max-tokens"
    return (
        f"{given}: {short:,} of its {chosen.n_seen:,} documents have fewer than the {longest + 1:,} tokens that the "
        "longest length needs; lower --lengths, add longer documents, or use --pack"
    )
