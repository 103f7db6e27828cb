"""What a provenance tells for the screen: state, machine, models. Whatever is not there is not told."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from lpe_eval.screen import duration, number

Lines = list[tuple[str, str]]


def state(provenance: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Lines:
    """What is finished, every start with its command and wall time, and the cost."""
    lines: Lines = []
    if rows:
        count: dict[str, int] = {}
        for row in rows:
            count[row["status"]] = count.get(row["status"], 0) + 1
        lines.append(("rows", ", ".join(f"{many} {status}" for status, many in count.items())))
    for start in provenance.get("starts", []):
        took = "not ended" if start.get("seconds") is None else f"{duration(start['seconds'])} of wall time"
        done = "" if start.get("cells") is None else f", {start['cells']} cells"
        lines.append(("started", f"{start.get('began')}, {took}{done}"))
        lines.append(("by", shlex.join(start.get("argv", []))))
    if "starts" not in provenance and "seconds" in provenance:
        lines.append(("wall time", duration(provenance["seconds"])))
    spent = provenance.get("cost") or {}
    if spent:
        speed = f"{number(spent.get('tokens_per_second'))} tokens a second"
        lines.append(("in the model", f"{duration(spent['seconds'])} for {spent['tokens']:,} tokens, {speed}"))
        if spent.get("peak_memory_mib") is not None:
            lines.append(("peak memory", f"{spent['peak_memory_mib']:,.0f} MiB"))
    return lines


def machine(provenance: Mapping[str, Any], spec: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Lines:
    """With what it was measured: code, device, precision, attention, libraries."""
    here = provenance.get("environment") or {}
    device = spec.get("device") or here.get("device_type")
    used = provenance.get("attention") or [row["attention"] for row in rows if row.get("attention")]
    lines = [
        ("lpe-eval", f"{here.get('lpe_eval')}, {_source(here.get('source'))}" if here else ""),
        ("device", several(filter(None, (here.get("device"), device)))),
        ("cuda", listed(here.get("cuda"))),
        ("threads", text(here.get("threads"))),
        ("instructions", text(here.get("instructions"))),
        ("dtype", listed(provenance.get("dtype") or spec.get("dtype"))),
        ("attention", several(dict.fromkeys(used)) or text(spec.get("attention"))),
        ("deterministic", "yes" if here.get("deterministic") or spec.get("deterministic") else "not asked for"),
        ("python", f"{here.get('python')}, {here.get('platform')}" if here else ""),
        ("libraries", ", ".join(f"{name} {version}" for name, version in here.get("libraries", {}).items())),
        ("opened with", listed(provenance.get("opened_with"))),
    ]
    return [(name, value) for name, value in lines if value]


MODEL_COLUMNS = ("name", "reference", "digest", "encoding", "train length", "parameters", "tokenizer", "attention")


def models(provenance: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """A line a model under `MODEL_COLUMNS`; a column that no model fills is `-` throughout."""
    lines: list[tuple[str, ...]] = []
    for name, facts in (provenance.get("models") or {}).items():
        opened = facts.get("opened") or {}
        own = next((row for row in rows if row.get("model") == name), {})
        lines.append(
            (
                *(str(name), text(facts.get("reference")) or "-", text(facts.get("digest"))[:12] or "-"),
                text(opened.get("encoding") or own.get("encoding")) or "not opened",
                text(opened.get("train_length") or own.get("train_length")) or "-",
                f"{opened['n_parameters']:,}" if opened.get("n_parameters") else "-",
                text(facts.get("tokenizer")) or "-",
                text(opened.get("attention") or own.get("attention")) or "-",
            )
        )
    return lines


def corpus(described: Mapping[str, Any], first: str = "") -> Lines:
    """The text, as its source describes it."""
    named = [
        first or str(described.get("name", "")),
        *(f"{key} {value}" for key, value in described.items() if key != "name"),
    ]
    return [("text", ", ".join(each for each in named if each))]


def seeds(provenance: Mapping[str, Any], spec: Mapping[str, Any]) -> Lines:
    """Every seed with what it decides."""
    found = provenance.get("seeds") or {"seed": spec.get("seed")}
    each = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found.items() if value is not None)
    return [("seeds", each)] if each else []


def listed(value: Any) -> str:
    """A mapping as names and values, anything else as it is."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return text(value)


def several(values: Any) -> str:
    """With commas between them."""
    return ", ".join(str(value) for value in values)


def text(value: Any) -> str:
    """A value, or nothing where there is none."""
    return "" if value is None else str(value)


def _source(source: Mapping[str, Any] | None) -> str:
    if source is None:
        return "no commit"
    if source.get("commit") is None:
        return f"{source.get('note', 'no commit')}; files {str(source.get('files'))[:12]}"
    return f"commit {source['commit'][:12]}{' with changes since' if source.get('dirty') else ''}"
