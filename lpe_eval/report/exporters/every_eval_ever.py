"""The aggregate records of Every Eval Ever, schema 0.3.0: one JSON file a model.

Source: `every_eval_ever/schemas/eval.schema.json` of github.com/evaleval/every_eval_ever, and its notes on what each
field means. A file lies where their repository wants it: `data/<collection>/<developer>/<model>/<uuid>.json`.

Choices:
    * The same run gives the same bytes: the uuid is made of the run's id and the model, and the time of the record is
      the start of the run.
    * A result is one number: a metric of a protocol at a length. What tells it apart stands in `metric_parameters`.
    * `metric_id` is the plain name where it means the same everywhere (perplexity, accuracy), else it begins with
      `lpe_eval.`.
    * Who reports, and how they stand to the model, is theirs to say; unless they do it is `unknown` and `other`.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import lpe_eval
from lpe_eval.report.exporter import Exporter, began, known_of, less_is_better, place_of, valued_rows
from lpe_eval.report.kind import Found
from lpe_eval.table import CHE_METRICS, METRICS, OPTIMUM_METRICS

_SCHEMA = "0.3.0"
_EVERYWHERE = ("perplexity", "bits_per_byte", "accuracy", "exact_match")
_MEANINGS = {**{name: meaning for name, (_, meaning) in {**METRICS, **OPTIMUM_METRICS}.items()}, **CHE_METRICS}
_RELATIONS = ("first_party", "third_party", "collaborative", "other")


class EveryEvalEver(Exporter):
    """See the module's docstring."""

    title = "Every Eval Ever: JSON for a shared collection of evaluations"
    options = {
        "organization": "who reports the values; unknown unless told",
        "relationship": f"to the model: {', '.join(_RELATIONS)}; other unless told",
        "developer": "who made the models; the first part of an id on the Hub, else unknown",
    }

    @classmethod
    def files(cls, found: Found, options: Mapping[str, str]) -> dict[str, bytes]:
        collection = _part(f"lpe_eval_{found.spec.get('task', found.kind.name)}")
        files: dict[str, bytes] = {}
        for model, rows in valued_rows(found).items():
            record = _record(found, model, rows, options)
            developer = _part(record["model_info"]["developer"])
            name = f"data/{collection}/{developer}/{_part(model)}/{_uuid(found, model)}.json"
            files[name] = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        return files


def _record(found: Found, model: str, rows: list[dict[str, Any]], options: Mapping[str, str]) -> dict[str, Any]:
    when, known = began(found), known_of(found, model)
    environment = found.provenance.get("environment", {})
    hub = re.fullmatch(r"(?:.+=)?(?:hf|huggingface):([\w.-]+/[\w.-]+)(?:@.+)?", str(known.get("reference", "")))
    identity = hub[1] if hub else model
    told = {"encoding": rows[0].get("encoding"), "train_length": rows[0].get("train_length"),
            "digest": known.get("digest"), "dtype": rows[0].get("dtype")}  # fmt: skip
    return {
        "schema_version": _SCHEMA,
        "evaluation_id": f"lpe_eval.{found.kind.name}/{identity}/{found.provenance.get('run', '')}",
        "evaluation_timestamp": when,
        "retrieved_timestamp": _epoch(when),
        "source_metadata": {
            "source_name": "lpe-eval",
            "source_type": "evaluation_run",
            "source_organization_name": options.get("organization", "unknown"),
            "evaluator_relationship": options.get("relationship", "other"),
        },
        "eval_library": {
            "name": "lpe_eval",
            "version": str(environment.get("lpe_eval", lpe_eval.__version__)),
            "additional_details": _texts({"run": found.provenance.get("run"), "device": environment.get("device")}),
        },
        "model_info": {
            "name": model,
            "id": identity,
            "developer": options.get("developer", identity.partition("/")[0] if hub else "unknown"),
            "additional_details": {
                "deployment_type": "self_deployed",
                "model_availability": "open_weights" if hub else "unknown",
                **_texts(told),
            },
        },
        "evaluation_results": [_result(found, row, model) for row in rows],
    }


def _result(found: Found, row: Mapping[str, Any], model: str) -> dict[str, Any]:
    metric, place = str(row["metric"]), dict(place_of(found, row))
    named = [str(place[name]) for name in ("task", "protocol", "length") if name in place]
    shares = metric in CHE_METRICS or metric.endswith("accuracy")
    lowest = 1.0 if metric == "perplexity" else 0.0 if less_is_better(found, metric) or shares else "-Infinity"
    return {
        "evaluation_result_id": "/".join([model, *(f"{name}={value}" for name, value in place.items()), metric]),
        "evaluation_name": ".".join(["lpe_eval", *named]),
        "source_data": _source(found, row),
        "metric_config": {
            "evaluation_description": _MEANINGS.get(metric, f"{metric} of {found.kind.title}"),
            "metric_id": metric if metric in _EVERYWHERE else f"lpe_eval.{metric}",
            "metric_name": metric.replace("_", " "),
            "metric_unit": str(row.get("unit") or ("proportion" if shares else "")),
            "metric_parameters": place,
            "lower_is_better": less_is_better(found, metric),
            "score_type": "continuous",
            "min_score": lowest,
            "max_score": 1.0 if shares else "Infinity",
        },
        "score_details": {
            "score": float(row["value"]),
            "details": _texts({name: row.get(name) for name in ("n_tokens", "n_documents", "n_items", "n_samples")}),
            **_uncertainty(row),
        },
    }


def _uncertainty(row: Mapping[str, Any]) -> dict[str, Any]:
    """Empty where there is none."""
    if row.get("stderr") is None:
        return {}
    method = str(row.get("ci_method") or "")
    found: dict[str, Any] = {
        "standard_error": {"value": float(row["stderr"]), **({"method": method} if method else {})}
    }
    if row.get("ci_low") is not None and row.get("ci_high") is not None:
        ends = {"lower": float(row["ci_low"]), "upper": float(row["ci_high"])}
        found["confidence_interval"] = {**ends, "confidence_level": 0.95, "method": method}
    if many := re.search(r"bootstrap\D*(\d+)$", method):
        found["num_bootstrap_samples"] = int(many[1])
    return {"uncertainty": found}


def _source(found: Found, row: Mapping[str, Any]) -> dict[str, Any]:
    corpus = found.provenance.get("corpus") or {}
    spec: Mapping[str, Any] = found.spec.get("corpus") or {}
    name = str(corpus.get("name") or spec.get("name") or row.get("task") or found.kind.name)
    details = _texts({key: corpus.get(key) for key in ("split", "python", "revision", "subset")})
    if spec.get("name") == "hub" and spec.get("path"):
        split = {"hf_split": str(corpus["split"])} if corpus.get("split") else {}
        return {"dataset_name": name, "source_type": "hf_dataset", "hf_repo": str(spec["path"]), **split,
                "additional_details": details}  # fmt: skip
    return {"dataset_name": name, "source_type": "other", "additional_details": details}


def _texts(details: Mapping[str, Any]) -> dict[str, str]:
    """Values are texts in their schema; what is unknown is left out."""
    return {name: str(value) for name, value in details.items() if value not in (None, "")}


def _epoch(when: str) -> str:
    try:
        return f"{datetime.fromisoformat(when).timestamp():.0f}"
    except ValueError:
        return "0"


def _uuid(found: Found, model: str) -> uuid.UUID:
    digest = hashlib.sha256(f"{found.provenance.get('run')}\0{model}".encode()).digest()
    return uuid.UUID(bytes=digest[:16], version=4)


def _part(name: str) -> str:
    """A name as one part of a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "unknown"
