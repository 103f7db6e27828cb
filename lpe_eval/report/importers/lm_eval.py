"""What lm-evaluation-harness writes with `--log_samples`: `results_<date>.json` and `samples_<task>_<date>.jsonl`.

Of each task these are judged:

    bits_per_byte, byte_perplexity   pairs of a log-likelihood and bytes: nats a byte, document by document
    word_perplexity                  likewise a word, where neither of those is there
    perplexity                       a log-likelihood of a target: nats a target
    a score from 0 to 1              such as acc, acc_norm, exact_match: the share of right answers

Sources: `lm_eval/evaluator.py` (what a line holds) and `lm_eval/api/metrics.py` (what the scores of a document mean)
of version 0.4.13, and files that it wrote.

Choices:
    * A document is told by `doc_hash`, else by the hash of its content; by nothing that depends on the model.
    * Several filters of one task are several scores. Of several outputs in one folder the newest of each task counts.
    * Shots, chat template and system instruction are part of the protocol, and windows too where texts are rolled
      over, so that two outputs which differ there are compared only with `--allow protocol`.
    * Scores that are no number of a document (BLEU, say), that have no direction, or that leave 0 to 1 are left out.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lpe_eval.errors import OutputError, SpecError
from lpe_eval.plain import Unreadable, json_of, read_plain
from lpe_eval.report.gate.joining import Judged
from lpe_eval.report.importer import Importer
from lpe_eval.table import BlockSum

_SAMPLES = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d+)\.jsonl?")
_OF_PAIRS = ("bits_per_byte", "byte_perplexity", "word_perplexity")
_ACCURACY = "accuracy"
_MANY = 1 << 53
_ODD = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class _Score(NamedTuple):
    """One score of one document: a sum, and over how many."""

    document: str
    digest: str
    total: float
    summands: int


class _Output(NamedTuple):
    """The samples of a task and what the results say of them."""

    task: str
    samples: Path
    results: Mapping[str, Any]


class LmEval(Importer):
    """See the module's docstring."""

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return any(_SAMPLES.fullmatch(path.name) for path in _files(folder))

    @classmethod
    def judged_rows(cls, folder: Path, source: str) -> list[Judged]:
        outputs = _outputs(folder)
        models = sorted({str(each.results.get("model_name") or each.samples.parent.name) for each in outputs})
        if len(models) > 1:
            raise SpecError(f"{folder} holds outputs of several models: {', '.join(models)}; name the folder of one")
        rows = [row for each in outputs for row in _rows(each, models[0], source)]
        if not rows:
            raise SpecError(f"{folder} holds no score of single documents that can be compared; see docs/exchange.md")
        return rows


def _files(folder: Path) -> list[Path]:
    """Those of the folder, and of the one below it that is named like the model."""
    try:
        return sorted([*folder.glob("samples_*.json*"), *folder.glob("*/samples_*.json*")])
    except OSError:
        return []


def _outputs(folder: Path) -> list[_Output]:
    newest: dict[tuple[Path, str], tuple[str, Path]] = {}
    for path in _files(folder):
        if found := _SAMPLES.fullmatch(path.name):
            key, dated = (path.parent, found["task"]), (found["date"], path)
            newest[key] = max(newest.get(key, dated), dated)
    return [_Output(task, path, _results(path.parent, date)) for (_, task), (date, path) in sorted(newest.items())]


def _results(folder: Path, date: str) -> Mapping[str, Any]:
    """What was noted at the same time; empty where it was not kept."""
    path = folder / f"results_{date}.json"
    if not path.is_file():
        return {}
    found = _read(path, json_of)
    if not isinstance(found, dict):
        raise OutputError(f"{path} holds no mapping; it is not what lm-evaluation-harness wrote")
    return found


def _read(path: Path, understood: Any) -> Any:
    try:
        return understood(read_plain(path))
    except Unreadable as error:
        raise OutputError(f"{path} {error}") from error


def _lines(text: str) -> list[dict[str, Any]]:
    """The documents of a task; early versions wrote them as one list."""
    if text.lstrip().startswith("["):
        return json_of(text)
    return [json_of(line) for line in text.splitlines() if line.strip()]


def _rows(output: _Output, model: str, source: str) -> Iterator[Judged]:
    try:
        scores = _scores(_read(output.samples, _lines), output)
        for (metric, label), found in scores.items():
            yield _judged(output, model, source, metric, label, found)
    except _ODD as error:
        raise OutputError(
            f"{output.samples} holds what lm-evaluation-harness does not write ({type(error).__name__}: {error})"
        ) from error


def _scores(lines: Sequence[Mapping[str, Any]], output: _Output) -> dict[tuple[str, str], list[_Score]]:
    """By what is judged and what it is called."""
    found: dict[tuple[str, str], list[_Score]] = {}
    no_share: set[tuple[str, str]] = set()
    higher = output.results.get("higher_is_better", {}).get(output.task, {})
    several = len({line.get("filter", "none") for line in lines}) > 1
    for line in lines:
        named = line.get("metrics") or list(higher) or [*_OF_PAIRS, "perplexity", "acc", "acc_norm", "exact_match"]
        here = {name: line[name] for name in named if name in line}
        digest = str(line.get("doc_hash") or hashlib.sha256(_text(line.get("doc"))).hexdigest())
        kept = f" ({line['filter']})" if several else ""
        paired = next((name for name in _OF_PAIRS if _is_pair(here.get(name))), None)
        for name, value in here.items():
            if name == paired:
                unit = "words" if name == "word_perplexity" else "bytes"
                place, total, count = (f"nats of {unit}", kept.strip()), -float(value[0]), int(value[1])
            elif name == "perplexity" and _is_number(value):
                place, total, count = ("nats of targets", kept.strip()), -float(value), 1
            elif name not in (*_OF_PAIRS, "perplexity") and _is_number(value) and higher.get(name, True):
                place, total, count = (_ACCURACY, f"{name}{kept}"), float(value), 1
                if not 0 <= total <= 1:
                    no_share.add(place)
            else:
                continue
            found.setdefault(place, []).append(_Score(str(line.get("doc_id", len(found))), digest, total, count))
    return {place: scores for place, scores in found.items() if place not in no_share}


def _judged(output: _Output, model: str, source: str, metric: str, label: str, found: Sequence[_Score]) -> Judged:
    blocks = [
        BlockSum(
            each.document, each.digest, 0, each.total, each.summands, each.summands, int(not math.isfinite(each.total))
        )
        for each in found
    ]
    results, config = output.results, output.results.get("config", {})
    total, count = sum(each.total for each in found), sum(each.summands for each in found)
    accuracy = metric == _ACCURACY
    version = results.get("versions", {}).get(output.task, 0)
    rolled = f", windows of {results.get('max_length')}" if not accuracy and "targets" not in metric else ""
    shots = results.get("n-shot", {}).get(output.task, 0)
    prompts = [results.get(name) for name in ("chat_template_sha", "system_instruction_sha")]
    row = {
        "model": model,
        "task": f"{output.task} {label}".strip() if accuracy else output.task,
        "task_version": version,
        "protocol": f"{output.task} {label}".strip(),
        "length": int(results.get("max_length") or 0),
        "stride": None,
        "metric": metric,
        "value": total / count if count else math.nan,
        "status": "ok" if count and math.isfinite(total) else "error",
        "note": "",
    }
    settings = {
        "task": f"{output.task}, version {version}",
        "protocol": f"{shots} shots, prompt {prompts}{rolled}",
        "tokenizer": "",
        "dtype": str(config.get("model_dtype", "")),
        "seed": str(config.get("fewshot_seed", "")) if shots else "",
    }
    sha = config.get("model_sha")
    part = "" if accuracy else f"{output.task} {label}".strip()
    return Judged(row, blocks, settings, None, sha or None, source, direction=-1.0 if accuracy else 1.0, part=part)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)) and 0 < value[1] < _MANY


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _text(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, ensure_ascii=True, default=str).encode()
