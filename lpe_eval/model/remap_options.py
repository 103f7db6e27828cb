"""How other distances for RoPE are asked for, `self_extend:group=8,window=1024`, and what is meant by default.

Choices:
    * Defaults are those of the released code, which stand there for models trained on 4,096 tokens: a window of 512
      (ReRoPE), of 1,024 (Self-Extend), 3/4 and 1/8 of the length (ChunkLlama). Where they are lengths they are taken
      here as these shares of the training length. Groups of 8 and the factor 16 are as released.
    * ReRoPE and its leaky form multiply queries by Su's log-n factor, as their code always does; `log_n: false` leaves
      it out. The others do it if asked. `log_n` alone is a method too: no distance is changed.
    * `length_factor` (dual chunk attention) makes every logit depend on the length of the text. The paper's results do
      not use it, so it is off.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.model.remaps import (
    DistanceMap,
    Division,
    LengthFactor,
    dual_chunk,
    length_factor,
    log_n,
    rectified,
    self_extend,
    unmapped,
)
from lpe_eval.plain import Unreadable, json_of, yaml_of

Method = Literal["self_extend", "rerope", "leaky_rerope", "dca", "log_n"]

_OWN: Mapping[str, tuple[str, ...]] = {
    "self_extend": ("window", "group", "division"),
    "rerope": ("window",),
    "leaky_rerope": ("window", "factor"),
    "dca": ("chunk_size", "local", "length_factor"),
    "log_n": (),
}
"""The options of each method, beside those that all have."""

_GROUP, _FACTOR = 8, 16.0
"""As released."""


class RemapOptions(BaseModel):
    """Options of a change of distances; those that are None follow the released code."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    shared: ClassVar[tuple[str, ...]] = ("log_n", "original_length")

    method: Method = "self_extend"
    window: int | None = Field(default=None, ge=1)
    """Keys nearer than this keep their distance (ReRoPE, leaky ReRoPE, Self-Extend)."""
    group: int | None = Field(default=None, ge=1)
    """How many positions count as one far away (Self-Extend)."""
    division: Division | None = None
    """Of the window by the group: "floor", or "real" as in LongLM's default Llama file (Self-Extend)."""
    factor: float | None = Field(default=None, ge=1)
    """By which distances beyond the window grow more slowly (leaky ReRoPE)."""
    chunk_size: int | None = Field(default=None, ge=2)
    """The largest distance (dual chunk attention)."""
    local: int | None = Field(default=None, ge=1)
    """Tokens before a chunk that keep their distance (dual chunk attention)."""
    length_factor: LengthFactor | None = None
    """What multiplies all logits beyond the training length (dual chunk attention)."""
    log_n: bool | None = None
    """Whether the query at i is multiplied by max(1, log(i + 1) / log(L0))."""
    original_length: int | None = Field(default=None, ge=2)
    """L0, the length the model was trained on; what the checkpoint says unless given."""

    @model_validator(mode="after")
    def _of_the_method(self) -> "RemapOptions":
        known = (*_OWN[self.method], *self.shared)
        strange = [name for name in _every_own() if name not in known and getattr(self, name) is not None]
        if strange:
            raise ValueError(f"{strange[0]} is no option of {self.method}, which has {', '.join(known)}")
        if self.method == "log_n" and self.log_n is False:
            raise ValueError("the method log_n without log_n changes nothing")
        return self

    @property
    def spelled(self) -> str:
        """As `parse_remap` reads it, with nothing but what was asked for."""
        asked = self.model_dump(include=set(RemapOptions.model_fields)).items()
        given = [f"{name}={_word(value)}" for name, value in asked if name != "method" and value is not None]
        return f"{self.method}:{','.join(given)}" if given else self.method

    def resolved(self, train_length: int | None, where: str) -> "Remapping":
        """The options with every number known.

        Args:
            train_length: what the model says of its training; None if it does not.
            where: what messages call it.

        Raises:
            SpecError: a length is needed and nobody says it, or the lengths do not fit each other.
        """
        original = self.original_length or train_length
        scaled = self.log_n if self.log_n is not None else self.method in ("rerope", "leaky_rerope", "log_n")
        factor = self.length_factor or "none"
        chosen = {name: getattr(self, name) for name in _OWN[self.method] if name != "length_factor"}
        lacking = any(value is None for name, value in chosen.items() if name in ("window", "chunk_size", "local"))
        if original is None and (lacking or scaled or factor != "none"):
            raise SpecError(
                f"{where}: the model does not say how long its training windows were; add original_length=TOKENS to "
                f"the remap {self.method}"
            )
        known = original or 0
        if scaled and known < 2:
            raise SpecError(f"{where}: log_n needs a training length of 2 tokens or more, not {known}")
        defaults: dict[str, Any] = {
            "window": max(1, known // (4 if self.method == "self_extend" else 8)),
            "group": _GROUP,
            "division": "floor",
            "factor": _FACTOR,
            "chunk_size": max(2, 3 * known // 4),
            "local": max(1, known // 8),
        }
        chosen = {name: defaults[name] if value is None else value for name, value in chosen.items()}
        if self.method == "dca" and chosen["local"] >= chosen["chunk_size"]:
            raise SpecError(
                f"{where}: dca needs a chunk_size above local, not {chosen['chunk_size']} and {chosen['local']}"
            )
        return Remapping(self.method, chosen, original, scaled, factor)


class Remapping(NamedTuple):
    """A change of distances with every number known.

    Attributes:
        chosen: the options of its method.
        original: L0; None where nothing needs it.
        scaled: whether queries have the log-n factor.
        factor: the rule that multiplies all logits.
    """

    method: Method
    chosen: Mapping[str, Any]
    original: int | None
    scaled: bool
    factor: LengthFactor

    @property
    def distances(self) -> DistanceMap:
        """Which keys are at which distance."""
        chosen = self.chosen
        match self.method:
            case "self_extend":
                return self_extend(chosen["window"], chosen["group"], chosen["division"])
            case "rerope":
                return rectified(chosen["window"])
            case "leaky_rerope":
                return rectified(chosen["window"], chosen["factor"])
            case "dca":
                return dual_chunk(chosen["chunk_size"], chosen["local"])
            case "log_n":
                return unmapped()

    @property
    def prefix_stable(self) -> bool:
        """Whether a prefix scores as it does alone."""
        return self.factor == "none"

    @property
    def unchanged_below(self) -> int | None:
        """Texts of so many tokens score as without it; None if all do."""
        ends = [self.original] if self.scaled or self.factor != "none" else []
        ends += [] if self.method == "log_n" else [self.distances.period]
        return min((each for each in ends if each is not None), default=None)

    def query_factor(self, at: Int[Tensor, " n"], length: int) -> Float[Tensor, " n"] | None:
        """What the query at each position is multiplied by, in float32; None where it is 1.

        Args:
            at: positions.
            length: tokens of the text.
        """
        found: Tensor | None = log_n(at, self.original) if self.scaled and self.original is not None else None
        if self.factor != "none" and self.original is not None:
            whole = length_factor(self.factor, length, self.original)
            found = torch.full(at.shape, whole, device=at.device) if found is None else found * whole
        return found

    def told(self) -> dict[str, Any]:
        """For a provenance: every number that matters."""
        told: dict[str, Any] = {"method": self.method, **self.chosen, "log_n": self.scaled}
        if self.method == "dca":
            told["length_factor"] = self.factor
        return told | ({"original_length": self.original} if self.scaled or self.factor != "none" else {})


def parse_remap(text: str) -> RemapOptions:
    """Reads `self_extend:group=8,window=1024`, the name of a method, or JSON with the key `method`.

    Raises:
        UnknownName: there is no such method, or it has no such option.
        SpecError: a value does not fit.
    """
    where = f"--remap {text[:200]}"
    given: dict[str, Any] = {}
    if text.startswith("{"):
        try:
            given = dict(json_of(text))
        except (Unreadable, TypeError, ValueError) as error:
            raise SpecError(f"{where} {error}") from error
        method = str(given.pop("method", ""))
    else:
        method, colon, rest = text.partition(":")
        if colon and not rest.strip():
            raise SpecError(f"{where} ends in a colon; write {method}:window=1024, or {method} alone")
        for part in filter(None, (part.strip() for part in rest.split(","))):
            key, equals, value = part.partition("=")
            if not equals or key.strip() in given:
                fault = "is given twice" if equals else "is not key=value"
                raise SpecError(f"{where}: {part!r} {fault}; write self_extend:group=8,window=1024")
            try:
                given[key.strip()] = yaml_of(value)
            except Unreadable as error:
                raise SpecError(f"{where}: the value of {key.strip()} {error}") from error
    method = method.strip().replace("-", "_")
    if method not in _OWN:
        raise UnknownName("remap of distances", method, _OWN)
    known = (*_OWN[method], *RemapOptions.shared)
    for key in given:
        if key not in known:
            raise UnknownName(f"option of the remap {method}", key, known)
    try:
        return RemapOptions(method=method, **given)  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        detail = first["msg"].removeprefix("Value error, ")
        raise SpecError(f"{where}{', ' + place if place else ''}: {detail}") from error


def _every_own() -> list[str]:
    return list(dict.fromkeys(name for names in _OWN.values() for name in names))


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
