"""The contract of a format in which other programs read the values of a run.

A format is one file in `exporters/`, named like the format. It makes files of a run that was read back; `lpe-eval
export` writes them. Every value is the stored one. What has no finite value is left out, since JSON has no word for it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from lpe_eval.errors import SpecError
from lpe_eval.report.kind import Found
from lpe_eval.table import CHE_METRICS


class Exporter(ABC):
    """A format; members hold no state.

    Attributes:
        title: one line for people.
        options: what else can be said with `--option NAME=VALUE`, each with its meaning.
    """

    title: ClassVar[str]
    options: ClassVar[Mapping[str, str]] = {}

    @classmethod
    @abstractmethod
    def files(cls, found: Found, options: Mapping[str, str]) -> dict[str, bytes]:
        """The files, by their paths below the folder that they are written to.

        Args:
            found: a run with values.
            options: those of `options` that were given.

        Raises:
            SpecError: the format has no place for this kind of run, or needs an option.
        """


def valued_rows(found: Found) -> dict[str, list[dict[str, Any]]]:
    """The rows with a finite value, by model.

    Raises:
        SpecError: the kind has no models with values, or none has one.
    """
    names = {column.name for column in found.kind.columns}
    if not {"model", "metric", "value"} <= names:
        raise SpecError(f"{found.path} holds {found.kind.title}, which has no values of models to export")
    by_model: dict[str, list[dict[str, Any]]] = {}
    for row in found.rows:
        if row["status"] == "ok" and row["value"] is not None and math.isfinite(row["value"]):
            by_model.setdefault(str(row["model"]), []).append(row)
    if not by_model:
        raise SpecError(f"{found.path} holds no values; run it to its end, or name another folder")
    return by_model


def less_is_better(found: Found, metric: str) -> bool:
    """Whether a lower value of a metric is the better one: losses and perplexities, but no shares and no gains."""
    judged = found.kind.worse_is.get(metric)
    if judged is not None:
        return judged > 0
    return metric not in CHE_METRICS and not metric.endswith(("accuracy", "gain_nats", "gain_share"))


def place_of(found: Found, row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What tells a row apart from others of its model and metric: protocol, length, stride and the like."""
    for column in found.kind.columns:
        if column.key and column.name not in ("model", "metric") and row[column.name] is not None:
            yield column.name, row[column.name]


def known_of(found: Found, model: str) -> Mapping[str, Any]:
    """What the provenance says of a model; empty where it says nothing."""
    models = found.provenance.get("models")
    known = models.get(model) if isinstance(models, Mapping) else None
    return known if isinstance(known, Mapping) else {}


def began(found: Found) -> str:
    """When the run was last started, as ISO 8601; "" where nobody knows."""
    starts: Sequence[Any] = found.provenance.get("starts") or []
    last = starts[-1] if starts else {}
    return str(last.get("began", "")) if isinstance(last, Mapping) else ""
