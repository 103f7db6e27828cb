"""What `lpe-eval show` tells of a folder: what was measured, with what, where, how long; and what to cite.

It reads whatever a run left, finished or not, of this version or an earlier one: what is not there is not
told. Numbers come from the tables, everything else from `provenance.json` and `spec.yaml`.
"""

import csv
import io
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lpe_eval import table
from lpe_eval.console import clock, number
from lpe_eval.errors import LpeEvalError, OutputError, SpecError
from lpe_eval.plain import Unreadable, json_of, read_plain, yaml_of
from lpe_eval.report.folders.reading import MARKER, read_csv, read_marker

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Title, columns, rows."""

_TABLES = {"ppl": ("rows.csv", table.ROWS), "speed": ("speed.csv", table.SPEED), "che": ("che.csv", table.CHE)}
_KINDS = {"ppl": "perplexity", "train": "a training", "speed": "speed", "che": "algorithmic problems"}


class Folder(NamedTuple):
    """A folder that holds a run, read back."""

    path: Path
    kind: str
    spec: Mapping[str, Any]
    provenance: Mapping[str, Any]
    rows: list[dict[str, Any]]
    """Of the kind's table; empty where nothing has been finished."""


def open_folder(path: Path) -> Folder:
    """Reads a run of any kind.

    Raises:
        SpecError: the folder is not there, or holds no run.
        OutputError: it holds one that is damaged, or of another version of the tables.
    """
    if not path.is_dir():
        raise SpecError(f"there is no folder {path}; give the folder that a run was written to")
    spec = _mapping(path / "spec.yaml")
    kind = spec.get("kind")
    if kind not in _KINDS:
        raise SpecError(f"{path} holds no run (no spec.yaml of one); give the folder that a run was written to")
    if (path / MARKER).exists():
        read_marker(path)
    rows: list[dict[str, Any]] = []
    if kind in _TABLES:
        name, columns = _TABLES[kind]
        if (path / name).exists():
            frame = read_csv(path / name, columns).astype(object)
            rows = frame.where(frame.notna(), None).to_dict("records")
    return Folder(path, kind, spec, _mapping(path / "provenance.json"), rows)


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Turns what a run's files say in a way that nobody wrote into one sentence.

    Raises:
        OutputError: something inside was not as this program writes it.
    """
    try:
        yield
    except LpeEvalError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise OutputError(f"{path} has a spec.yaml or provenance.json that this program did not write") from error


def tables(found: Folder) -> list[Table]:
    """Everything about a run but its values."""
    shown: list[Table] = [
        (str(found.path), ("measured", ""), [("kind", _KINDS[found.kind]), *_measured(found), *_state(found)]),
        ("with", ("what", ""), _with(found)),
    ]
    models = _models(found)
    return [*shown, ("models", models[0], models[1:])] if models else shown


def metric(found: Folder) -> str:
    """What the values of a perplexity run are compared in: with several tokenizers, bits per byte."""
    models = (found.provenance.get("models") or {}).values()
    ids = {facts.get("ids_fingerprint") or facts.get("tokenizer_fingerprint") for facts in models}
    return "bits_per_byte" if len(ids) > 1 else "perplexity"


def losses(path: Path) -> Table:
    """The losses of a training where they were validated: at most ten steps, the last one among them."""
    valid = [line for line in _lines(path / "training.csv") if line.get("valid_nll_nats")]
    kept = sorted({round(place * (len(valid) - 1) / 9) for place in range(10)}) if valid else []
    columns = ("step", "train_nll_nats", "valid_nll_nats", "seconds")
    shown = [[valid[place].get(column) or "nan" for column in columns] for place in kept]
    return "losses", columns, [[step, *(number(float(each)) for each in rest)] for step, *rest in shown]


def summary(path: Path) -> Table:
    """`summary.csv` of a run on algorithmic problems."""
    lines = _lines(path / "summary.csv")
    return "summary", list(lines[0]) if lines else [], [[value or "" for value in line.values()] for line in lines]


def spec_text(found: Folder) -> str:
    """`spec.yaml` as it is."""
    return read_plain(found.path / "spec.yaml")


def _measured(found: Folder) -> list[tuple[str, str]]:
    spec, known = found.spec, found.provenance
    rows: list[tuple[str, str]] = [("run", _text(known.get("run")))]
    if found.kind == "ppl":
        rows += [("task", _task(spec, known)), *_facts(known.get("corpus", {}), "text")]
        rows += [
            ("protocols", ", ".join(_protocol(each) for each in spec.get("protocols", []))),
            ("lengths", _several(spec.get("lengths", []))),
            ("text budget", f"{spec.get('max_tokens', 0):,} tokens at every length{_selected(known)}"),
            ("windows", f"BOS {spec.get('bos')}, tail {spec.get('tail')}, {'' if spec.get('pack') else 'not '}packed"),
        ]
    if found.kind == "train":
        model, corpus = spec.get("model", {}), known.get("corpus", {})
        shape = f"{model.get('layers')} layers, width {model.get('width')}, {model.get('heads')} heads"
        rows += [
            ("model", f"{spec.get('name')}: {shape}, windows of {model.get('train_length')}"),
            ("encoding", json.dumps(model.get("encoding"))),
            ("steps", f"{spec.get('steps')} of {spec.get('batch_tokens')} tokens, rate {spec.get('learning_rate')}"),
            *_facts(corpus.get("describe", {}), "text", str(spec.get("corpus", {}).get("name"))),
            *((f"{split} text", _text(corpus.get(split))) for split in ("train", "valid")),
            ("checkpoint", _text(known.get("checkpoint_digest"))),
        ]
    if found.kind == "speed":
        rows += [
            ("modes", _several(spec.get("modes", []))),
            ("lengths", _several(spec.get("lengths", []))),
            ("model", f"{spec.get('layers')} layers, width {spec.get('width')}, {spec.get('heads')} heads"),
            ("rounds", f"{spec.get('rounds')} of {spec.get('batch_tokens')} tokens"),
        ]
    if found.kind == "che":
        rows += [
            ("tasks", _several(dict.fromkeys(f"{row['task']} v{row['task_version']}" for row in found.rows))),
            ("encodings", _several(dict.fromkeys(row["encoding"] for row in found.rows))),
        ]
    seeds = known.get("seeds") or {"seed": spec.get("seed")}
    rows.append(("seeds", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in seeds.items())))
    return [(name, value) for name, value in rows if value]


def _state(found: Folder) -> list[tuple[str, str]]:
    known, spent = found.provenance, found.provenance.get("cost") or {}
    rows: list[tuple[str, str]] = []
    if found.rows:
        count: dict[str, int] = {}
        for row in found.rows:
            count[row["status"]] = count.get(row["status"], 0) + 1
        rows.append(("rows", ", ".join(f"{many} {status}" for status, many in count.items())))
    if found.kind == "train":
        rows.append(("state", "finished" if known else "not finished"))
    for start in known.get("starts", []):
        took = "not ended" if start.get("seconds") is None else f"{_took(start['seconds'])} of wall time"
        done = "" if start.get("cells") is None else f", {start['cells']} cells"
        rows.append(("started", f"{start.get('began')}, {took}{done}"))
        rows.append(("by", shlex.join(start.get("argv", []))))
    if "starts" not in known and "seconds" in known:
        rows.append(("wall time", _took(known["seconds"])))
    if spent:
        speed = f"{number(spent.get('tokens_per_second'))} tokens a second"
        rows.append(("in the model", f"{_took(spent['seconds'])} for {spent['tokens']:,} tokens, {speed}"))
        if spent.get("peak_memory_mib") is not None:
            rows.append(("peak memory", f"{spent['peak_memory_mib']:,.0f} MiB"))
    return rows


def _with(found: Folder) -> list[tuple[str, str]]:
    known = found.provenance
    here = known.get("environment") or {}
    device = found.spec.get("device") or here.get("device_type")
    rows = [
        ("lpe-eval", f"{here.get('lpe_eval')}, {_source(here.get('source'))}" if here else ""),
        ("device", _several(filter(None, (here.get("device"), device)))),
        ("cuda", _listed(here.get("cuda"))),
        ("threads", _text(here.get("threads"))),
        ("instructions", _text(here.get("instructions"))),
        ("dtype", _listed(known.get("dtype") or found.spec.get("dtype"))),
        ("attention", _attention(found)),
        ("deterministic", "yes" if here.get("deterministic") or found.spec.get("deterministic") else "not asked for"),
        ("python", f"{here.get('python')}, {here.get('platform')}" if here else ""),
        ("libraries", ", ".join(f"{name} {version}" for name, version in here.get("libraries", {}).items())),
        ("opened with", _listed(known.get("opened_with"))),
    ]
    return [(name, value) for name, value in rows if value]


def _models(found: Folder) -> list[tuple[str, ...]]:
    """A line a model below the names of the columns; empty where a run has none."""
    models = found.provenance.get("models") or {}
    lines: list[tuple[str, ...]] = []
    for name, facts in models.items():
        opened = facts.get("opened") or {}
        own = next((row for row in found.rows if row.get("model") == name), {})
        lines.append(
            (
                *(str(name), _text(facts.get("reference")), _text(facts.get("digest"))[:12]),
                _text(opened.get("encoding") or own.get("encoding")) or "not opened",
                _text(opened.get("train_length") or own.get("train_length")) or "-",
                f"{opened['n_parameters']:,}" if opened.get("n_parameters") else "-",
                _text(facts.get("tokenizer")) or "-",
                _text(opened.get("attention") or own.get("attention")) or "-",
            )
        )
    columns = ("name", "reference", "digest", "encoding", "train length", "parameters", "tokenizer", "attention")
    return [columns, *lines] if lines else []


def _task(spec: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    name = f"{spec.get('task')} v{spec.get('task_version')}" if spec.get("task_version") else str(spec.get("task"))
    print_ = (known.get("task") or {}).get("fingerprint")
    return f"{name}, fingerprint {print_[:16]}" if print_ else name


def _selected(known: Mapping[str, Any]) -> str:
    texts = {facts.get("text_fingerprint"): facts for facts in (known.get("models") or {}).values()}
    told = [
        f"{len(facts.get('documents', []))} documents, fingerprint {str(fingerprint)[:16]}"
        for fingerprint, facts in texts.items()
    ]
    return f"; {'; '.join(told)}" if told else ""


def _protocol(each: Mapping[str, Any]) -> str:
    numbers = [f"{name} {each[name]}" for name in ("stride", "last_k") if each.get(name) is not None]
    return f"{each.get('name')}{' (' + ', '.join(numbers) + ')' if numbers else ''}"


def _facts(described: Mapping[str, Any], name: str, first: str = "") -> list[tuple[str, str]]:
    named = [
        first or str(described.get("name", "")),
        *(f"{key} {value}" for key, value in described.items() if key != "name"),
    ]
    return [(name, ", ".join(each for each in named if each))]


def _source(source: Mapping[str, Any] | None) -> str:
    if source is None:
        return "no commit"
    if source.get("commit") is None:
        return f"{source.get('note', 'no commit')}; files {str(source.get('files'))[:12]}"
    return f"commit {source['commit'][:12]}{' with changes since' if source.get('dirty') else ''}"


def _attention(found: Folder) -> str:
    used = found.provenance.get("attention") or [row["attention"] for row in found.rows if row.get("attention")]
    if isinstance(used, Mapping):
        return ", ".join(f"{name}: {path}" for name, path in used.items())
    return _several(dict.fromkeys(used)) or _text(found.spec.get("attention"))


def _took(seconds: float | int) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)


def _listed(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return _text(value)


def _several(values: Any) -> str:
    return ", ".join(str(value) for value in values)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _lines(path: Path) -> list[dict[str, str | None]]:
    """The lines of a table; none where there is no file."""
    try:
        return list(csv.DictReader(io.StringIO(read_plain(path)))) if path.exists() else []
    except (Unreadable, csv.Error) as error:
        raise OutputError(f"{path} {error}") from error


def _mapping(path: Path) -> dict[str, Any]:
    """A YAML or JSON file; empty where there is none."""
    if not path.exists():
        return {}
    try:
        found = (yaml_of if path.suffix == ".yaml" else json_of)(read_plain(path))
    except Unreadable as error:
        raise OutputError(f"{path} {error}") from error
    if not isinstance(found, dict):
        raise OutputError(f"{path} holds no mapping; run the same command again to write it anew")
    return found
