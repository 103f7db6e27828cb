"""Results as a model repository of the Hugging Face Hub holds them: `.eval_results/<name>.yaml`, one file a model.

Source: huggingface.co/docs/hub/eval-results, and `EvalResultEntry` of `huggingface_hub` 2.4. An entry is one number of
a benchmark: a dataset on the Hub with tasks. So it has to be said which dataset the values are of, unless the text came
from there; a task is named after the protocol and the length, or as it is told to be.

Choices:
    * One metric, since an entry has no place for its name: perplexity unless told; accuracy where there is none.
    * `notes` say what the number is, with its standard error.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.report.exporter import Exporter, began, place_of, valued_rows
from lpe_eval.report.kind import Found
from lpe_eval.screen import with_error

_FIRST = ("perplexity", "accuracy")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class EvalResults(Exporter):
    """See the module's docstring."""

    title = "the Hub's .eval_results: YAML for a model repository"
    options = {
        "dataset": "id of the benchmark on the Hub, org/name; that of the text where it came from there",
        "task-id": "of the benchmark, with {protocol}, {length}, {task}; {protocol}-{length} unless told",
        "metric": "which value; perplexity unless told, else accuracy",
        "source": "link to where the values come from, such as a page of logs",
    }

    @classmethod
    def files(cls, found: Found, options: Mapping[str, str]) -> dict[str, bytes]:
        by_model = valued_rows(found)
        corpus: Mapping[str, Any] = found.spec.get("corpus") or {}
        dataset = options.get("dataset") or (str(corpus.get("path")) if corpus.get("name") == "hub" else "")
        if not _HUB_ID.fullmatch(dataset):
            raise SpecError(
                "eval-results needs the id of a benchmark on the Hub; give it with --option dataset=org/name"
                + (f", not {dataset!r}" if dataset else "")
            )
        known = list(dict.fromkeys(str(row["metric"]) for rows in by_model.values() for row in rows))
        metric = options.get("metric") or next((each for each in _FIRST if each in known), known[0])
        if metric not in known:
            raise UnknownName(f"metric of {found.path}", metric, known)
        revision = (found.provenance.get("corpus") or {}).get("revision") if not options.get("dataset") else None
        files: dict[str, bytes] = {}
        for model, rows in by_model.items():
            entries = [_entry(found, row, dataset, revision, options) for row in rows if row["metric"] == metric]
            text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=1000)
            name = re.sub(r"[^A-Za-z0-9._-]+", "_", model).strip("._") or "model"
            files[f".eval_results/{name}.yaml"] = text.encode()
        return files


def _entry(
    found: Found, row: Mapping[str, Any], dataset: str, revision: Any, options: Mapping[str, str]
) -> dict[str, Any]:
    place = dict(place_of(found, row))
    named = {name: str(place.get(name, found.kind.name)) for name in ("protocol", "length", "task")}
    form = options.get("task-id", "{protocol}-{length}")
    task = re.sub(r"\{(protocol|length|task)\}", lambda part: named[part[1]], form)
    told = ", ".join(f"{name} {value}" for name, value in place.items() if name not in ("corpus", "split"))
    when, source = began(found), options.get("source")
    return {
        "dataset": {"id": dataset, "task_id": task, **({"revision": str(revision)} if revision else {})},
        "value": float(row["value"]),
        **({"date": when} if when else {}),
        **({"source": {"url": source, "name": "lpe-eval"}} if source else {}),
        "notes": f"{row['metric']} {with_error(row['value'], row.get('stderr'))}: {told}",
    }
