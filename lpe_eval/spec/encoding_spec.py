"""The name and options of a positional encoding, written `dape(kerple_log)` or as nested YAML; or one for each layer.

    dape(kerple_log)                    an encoding around another one
    p_rope[p=0.5, theta=1e6]            with options
    rope*3,none                         a schedule: three layers with RoPE and one without positions, over and over
    rope[window=512]*3,none             where the first three see 512 keys each
    rope[chunk=8192]*3,tempered(none)   the query's own chunk of 8192 tokens

`window` and `chunk` in the brackets belong to the layer, everything else there to the encoding in front of them.
"""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_serializer, model_validator

from lpe_eval.errors import SpecError
from lpe_eval.plain import Unreadable, has_utf8_form, yaml_of

_DEEPEST = 8
_SHORT = re.compile(r"\s*([A-Za-z][\w-]*)\s*(?:\((.*)\)\s*)?(?:\[([^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*)\]\s*)?", re.DOTALL)
_TIMES = re.compile(r"(.*)\*\s*(\d{1,6})\s*", re.DOTALL)
_POWER = re.compile(r"[+-]?\d+(?:\.\d*)?[eE][+-]?\d+")
"""A number that YAML takes for a text: 1e6."""
_SIGHT = ("window", "chunk")


class EncodingSpec(BaseModel):
    """One encoding, perhaps around another; or, in a list, what each layer has.

    In YAML it is flat: `{name: dape, hidden: 8, base: {name: kerple_log}}`. Option names are
    checked when the encoding is built, where the class that knows them is imported. A schedule is a list of
    `{encoding: {name: rope}, window: 512, times: 3}`; its `layers` are then its whole content.

    Attributes:
        name: of the encoding, from `list encodings`.
        options: of the encoding, beside its name in YAML: `{name: rope, theta: 1e6}`.
        base: the encoding around which it goes, for those that wrap another.
        layers: of a schedule: what each layer has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    options: dict[str, Any] = {}
    base: "EncodingSpec | None" = None
    layers: "tuple[LayerSpec, ...]" = ()

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        if isinstance(value, str):
            return dict(cls.parse(value))
        if isinstance(value, list | tuple):
            if not value:
                raise ValueError("a schedule of encodings names no layer; write rope*3,none")
            return {"layers": value}
        if isinstance(value, dict) and "options" not in value and not isinstance(value.get("layers"), tuple):
            known = {key: value[key] for key in ("name", "base") if key in value}
            return {**known, "options": {key: item for key, item in value.items() if key not in known}}
        return value

    @model_validator(mode="after")
    def _plain_name(self) -> "EncodingSpec":
        if not has_utf8_form(self.options):
            raise ValueError("an option holds half a surrogate pair, which is no character")
        if not self.layers and not self.name:
            raise ValueError("an encoding has no name; write {name: alibi}, or alibi")
        if self.base is not None and self.base.layers:
            raise ValueError(f"{self.name} goes around one encoding; write it around each one of the schedule")
        object.__setattr__(self, "name", self.name.replace("-", "_"))
        return self

    @model_serializer
    def _to_flat(self) -> dict[str, Any] | list[dict[str, Any]]:
        if self.layers:
            return [each.model_dump() for each in self.layers]
        flat: dict[str, Any] = {"name": self.name, **self.options}
        if self.base is not None:
            flat["base"] = self.base.model_dump()
        return flat

    @classmethod
    def parse(cls, text: str) -> "EncodingSpec":
        """Reads the short form: a name, in parentheses the encoding it wraps, in brackets options; or a schedule.

        Raises:
            SpecError: the text is not of that form.
        """
        entries = [_layer(each) for each in split_outside(text)]
        if len(entries) == 1 and entries[0].plain:
            return entries[0].encoding
        return cls(layers=tuple(entries))

    @property
    def period(self) -> int:
        """After how many layers the schedule begins again; 1 where there is none."""
        return sum(each.times for each in self.layers) or 1

    def by_layer(self, layers: int) -> "list[LayerSpec]":
        """What each of so many layers has; they are a multiple of the period."""
        entries = self.layers or (LayerSpec(encoding=self),)
        return [each for each in entries for _ in range(each.times)] * (layers // self.period)

    def methods(self) -> "Iterator[EncodingSpec]":
        """Every different encoding of the layers; this one itself where it is no schedule."""
        yield from dict.fromkeys(each.encoding for each in self.layers) if self.layers else (self,)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        if self.layers:
            return ",".join(map(str, self.layers))
        return self.name if self.base is None else f"{self.name}({self.base})"


class LayerSpec(BaseModel):
    """An encoding in some layers that follow each other, and how far back a query sees there.

    Attributes:
        encoding: no schedule itself.
        window: the most keys that a query sees, its own among them.
        chunk: tokens of a chunk, where a query sees its own chunk alone.
        times: how many layers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoding: EncodingSpec
    window: int | None = None
    chunk: int | None = None
    times: int = Field(default=1, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return dict(_layer(value)) if isinstance(value, str) else value

    @field_validator("window", "chunk")
    @classmethod
    def _shows_something(cls, tokens: int | None) -> int | None:
        if tokens is not None and tokens < 1:
            raise ValueError(f"{tokens} tokens show nothing; write 1 or more, or leave it out to see everything")
        return tokens

    @model_validator(mode="after")
    def _one_of_both(self) -> "LayerSpec":
        if self.window is not None and self.chunk is not None:
            raise ValueError(f"a layer of {self.encoding} has a window or chunks, not both; leave out one of them")
        if self.encoding.layers:
            raise ValueError("a layer of a schedule has one encoding, and this one has a schedule of its own")
        return self

    @model_serializer
    def _used(self) -> dict[str, Any]:
        sight = {name: getattr(self, name) for name in _SIGHT if getattr(self, name) is not None}
        return {"encoding": self.encoding.model_dump(), **sight, **({"times": self.times} if self.times > 1 else {})}

    @property
    def plain(self) -> bool:
        """Whether it is nothing but an encoding."""
        return self == LayerSpec(encoding=self.encoding)

    def __str__(self) -> str:
        sight = "".join(f"[{name}={getattr(self, name)}]" for name in _SIGHT if getattr(self, name) is not None)
        return f"{self.encoding}{sight}" + (f"*{self.times}" if self.times > 1 else "")


def split_outside(text: str) -> list[str]:
    """The parts of a text between commas that stand outside parentheses and brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _layer(text: str) -> LayerSpec:
    """One entry of a schedule.

    Raises:
        SpecError: it is not of the short form, or sees nothing.
    """
    repeated = _TIMES.fullmatch(text)
    one, times = (repeated[1], int(repeated[2])) if repeated else (text, 1)
    encoding, sight = _encoding(one, _SIGHT)
    for name, tokens in sight.items():
        if type(tokens) is not int or tokens < 1:
            raise SpecError(f"{text.strip()!r}: a {name} is a number of tokens, 1 or more, not {tokens!r}")
    if len(sight) > 1:
        raise SpecError(f"{text.strip()!r}: a layer has a window or chunks, not both; leave out one of them")
    if times < 1:
        raise SpecError(f"{text.strip()!r}: a schedule names each encoding for 1 layer or more, not for {times}")
    return LayerSpec(encoding=encoding, **sight, times=times)


def _encoding(text: str, apart: tuple[str, ...] = ()) -> tuple[EncodingSpec, dict[str, Any]]:
    """An encoding in the short form, and those of its options that are named in `apart`."""
    if text.count("(") > _DEEPEST:
        raise SpecError(
            f"{text[:40]!r}... wraps {text.count('(')} times; write at most {_DEEPEST} encodings around one"
        )
    match = _SHORT.fullmatch(text)
    if match is None:
        raise SpecError(f"{text[:200]!r} does not name an encoding; write alibi, or dape(kerple_log)")
    name, inside, written = match.groups()
    options = _options(text, written)
    found = {key: options.pop(key) for key in apart if key in options}
    base = _encoding(inside)[0] if inside is not None else None
    return EncodingSpec(name=name, options=options, base=base), found


def _options(text: str, written: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for each in split_outside(written) if written else []:
        key, equals, value = each.partition("=")
        if not equals or not key.strip():
            raise SpecError(f"{text[:200]!r}: {each.strip()!r} is not KEY=VALUE; write rope[window=512]")
        value = value.strip()
        try:
            options[key.strip().replace("-", "_")] = float(value) if _POWER.fullmatch(value) else yaml_of(value)
        except Unreadable as error:
            raise SpecError(f"{text[:200]!r}: the value of {key.strip()} {error}") from error
    return options


EncodingSpec.model_rebuild()
