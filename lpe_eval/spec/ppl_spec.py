"""What a perplexity run is, fully resolved: written to `spec.yaml`, and enough to run it again."""

import re
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_serializer, model_validator

from lpe_eval.errors import SpecError
from lpe_eval.plain import printable
from lpe_eval.screen import visible
from lpe_eval.spec.corpus_spec import CorpusSpec
from lpe_eval.spec.device_map import DeviceMap
from lpe_eval.spec.key_tokens_spec import KeyTokensSpec
from lpe_eval.spec.protocol_spec import ProtocolSpec
from lpe_eval.spec.tasks import LARGEST_SEED, Bos, PerplexityTask, Tail

LONGEST_EVER = 1 << 22
"""Lengths above four million tokens are taken for a slip of the keyboard."""

_MOST_WINDOWS = 1 << 24

_SWEEP = re.compile(r"(\d{1,12}):(\d{1,12}):([x+])(\d{1,12})")

_OPENING = (
    *("tokenizer", "revision", "trust_remote_code", "rope_scaling", "rope_theta", "remap", "as_published"),
    *("device_map", "tensor_parallel"),
)
_LATER = (*_OPENING, "deterministic", "task_fingerprint", "allow_leak", "keep_tokens", "key_tokens")


class PerplexitySpec(BaseModel):
    """One `lpe-eval ppl`.

    Attributes:
        kind: `ppl`.
        models: what is measured, each as `-m` takes it: a released name, a folder, or an address such as `hf:org/name`
            or `s3://bucket/folder`.
        task: the task that the text and the protocols come from; `custom` where it is none.
        task_version: of that task; 0 where there is none.
        corpus: the text: `python-stdlib`, a path, `hub:org/name`, or the fields below.
        protocols: how documents are cut into windows and which targets count, as a list of the fields below.
        lengths: tokens of the windows.
        max_tokens: how much text is measured at every length.
        bos: which windows start with BOS; `auto` does what the tokenizer does.
        pack: documents joined into one stream, as some papers do.
        tail: whether a document's last, shorter window counts.
        seed: of the choice of documents and of sampled positions.
        batch_size: windows that go through a model at once; `auto` takes as many as fit a fixed budget of tokens. It
            changes no value beyond rounding.
        device: `cpu`, `cuda`, `mps`; `auto` takes CUDA where there is one, else the CPU.
        dtype: of weights and products; `auto` is float32 on a CPU and bfloat16 on CUDA.
        attention: a path from `list attentions`, or `auto`. It changes no value beyond rounding.
        tokenizer: instead of the models' own: `bytes`, `char:FILE`, `hf:PATH`.
        revision: commit, tag or branch of a model on the Hub.
        trust_remote_code: whether Python code beside a checkpoint may be run.
        rope_scaling: a rule for RoPE's frequencies, such as `yarn:4`.
        rope_theta: RoPE's base.
        remap: other distances for RoPE, such as `self_extend:group=8,window=1024`.
        as_published: keep the rows that pad a GPT-NeoX vocabulary in the softmax.
        device_map: where the parts of a model of `hf:` lie: `auto`, `balanced`, `sequential`, or a place for each part
            by its name (`cpu`, `disk`, `cuda:1`). It changes no value, so it is no part of a run's id.
        tensor_parallel: under torchrun, all ranks hold one model of `hf:` together.
        deterministic: the same bits from the same command on CUDA too; changes no value on a CPU.
        task_fingerprint: of the task file; empty where the run is of no task.
        allow_leak: measure a model although it sees the future; its rows say so.
        keep_tokens: keep the loss of every target.
        key_tokens: how key tokens are chosen, whose perplexity is told apart; keeps the loss of every target too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["ppl"] = "ppl"
    models: tuple[str, ...] = Field(min_length=1)
    task: str = "custom"
    task_version: int = 0
    corpus: CorpusSpec
    protocols: tuple[ProtocolSpec, ...] = Field(min_length=1)
    lengths: tuple[int, ...] = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    bos: Bos = "auto"
    pack: bool = False
    tail: Tail = "score"
    seed: int = Field(default=0, ge=-LARGEST_SEED, le=LARGEST_SEED)
    batch_size: int | Literal["auto"] = "auto"
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: str = "auto"
    tokenizer: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    rope_scaling: str | None = None
    rope_theta: float | None = Field(default=None, gt=0)
    remap: str | None = None
    as_published: bool = False
    device_map: DeviceMap | None = None
    tensor_parallel: bool = False
    deterministic: bool = False
    task_fingerprint: str = ""
    allow_leak: bool = False
    keep_tokens: bool = False
    key_tokens: KeyTokensSpec | None = None

    @property
    def keeps_tokens(self) -> bool:
        """Whether losses of single tokens are kept."""
        return self.keep_tokens or self.key_tokens is not None

    @property
    def opening(self) -> dict[str, Any]:
        """How checkpoints are opened, beyond device, dtype and attention path; only what was asked for."""
        fields = type(self).model_fields
        return {name: getattr(self, name) for name in _OPENING if getattr(self, name) != fields[name].default}

    @model_serializer(mode="wrap")
    def _without_unused(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        # The id of a run hashes this text: a field that came later must not change it.
        unused = {name for name in _LATER if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in write(self).items() if name not in unused}

    @field_validator("lengths")
    @classmethod
    def _sorted_and_sane(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        for length in lengths:
            if not 1 <= length <= LONGEST_EVER:
                raise ValueError(f"a length must be between 1 and {LONGEST_EVER}, not {length}")
        return tuple(sorted(set(lengths)))

    @field_validator("models")
    @classmethod
    def _each_once(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        for reference in models:
            alias = reference.partition("=")[0]
            if alias != reference and printable(alias) != alias:
                raise ValueError(f"the name {printable(alias)} has bytes that are not UTF-8; choose another one")
            if alias != reference and visible(alias) != alias:
                raise ValueError(f"the name {visible(alias)} has characters that cannot be printed; choose another one")
        return tuple(dict.fromkeys(models))

    @model_validator(mode="after")
    def _batch_of_one_or_more(self) -> "PerplexitySpec":
        if self.batch_size != "auto" and self.batch_size < 1:
            raise ValueError(f"the batch size must be at least 1, not {self.batch_size}")
        if self.batch_size != "auto" and self.batch_size > _MOST_WINDOWS:
            raise ValueError(f"the batch size must be at most {_MOST_WINDOWS}, not {self.batch_size}")
        return self

    @model_validator(mode="after")
    def _key_tokens_of_two_lengths(self) -> "PerplexitySpec":
        if self.key_tokens is None:
            return self
        if not {"anchored", "sliding"} & {each.name for each in self.protocols}:
            raise ValueError("key tokens are chosen under the protocols anchored and sliding; add --protocol anchored")
        short, path = self.key_tokens.short, self.key_tokens.path
        if path is None and len(self.lengths) < 2:
            raise ValueError("key tokens are told by two lengths; give a short and a long one, such as 512,8192")
        if short is not None and short not in self.lengths[:-1]:
            raise ValueError(f"--key-short {short} is none of the lengths below the longest; add it to --lengths")
        return self

    @classmethod
    def of_task(cls, task: PerplexityTask, changes: dict[str, Any]) -> dict[str, Any]:
        """The plain fields of a run of `task` with `changes` on top, ready to be validated.

        A run on other text than the task's is no longer that task.
        """
        fields = task.model_dump(
            mode="json", include={"corpus", "protocols", "lengths", "max_tokens", "bos", "pack", "tail", "seed"}
        )
        named = {"task": task.name, "task_version": task.version, "task_fingerprint": task.fingerprint}
        return {**fields, **({} if "corpus" in changes else named), **changes}


def text_for(longest: int, task: PerplexityTask) -> int:
    """How many tokens of text are measured where nobody says: the task's, and at least 4.5 longest windows."""
    return max(task.max_tokens, 9 * max(longest, 0) // 2 + 3)


def parse_lengths(text: str) -> list[int]:
    """Lengths as people write them: `512,8192`, `128:16384:x2` (doubling), `1024:16384:+1024` (steps).

    Raises:
        SpecError: a part is none of these.
    """
    lengths: list[int] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        sweep = _SWEEP.fullmatch(part)
        if sweep is None:
            if not re.fullmatch(r"-?\d{1,12}", part):
                raise SpecError(f"--lengths: {part!r} is no length; write 512,8192 or 128:16384:x2 or 1024:4096:+1024")
            lengths.append(int(part))
            continue
        first, last, how, step = int(sweep[1]), int(sweep[2]), sweep[3], int(sweep[4])
        if first < 1 or last < first or last > LONGEST_EVER or step < (2 if how == "x" else 1):
            raise SpecError(f"--lengths: {part!r} does not go anywhere; write FIRST:LAST:xFACTOR or FIRST:LAST:+STEP")
        if how == "+" and (last - first) // step > 10_000:
            raise SpecError(f"--lengths: {part!r} makes more than 10000 lengths; take a larger step")
        length = first
        while length <= last:
            lengths.append(length)
            length = length * step if how == "x" else length + step
    if not lengths:
        raise SpecError("--lengths names no length; write 512,8192")
    return lengths


def parse_protocols(text: str, stride: str | None, last_k: int | None) -> list[ProtocolSpec]:
    """Protocols as people write them: `nonoverlap,sliding`, with the stride and last-k flags applied.

    Raises:
        SpecError: a protocol does not exist, or a flag fits none of them.
    """
    known = ("nonoverlap", "sliding", "last", "anchored")
    names = list(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in known:
            raise SpecError(f"--protocol: there is no {name!r}; known: {', '.join(known)}")
    if not names:
        raise SpecError(f"--protocol names none; known: {', '.join(known)}")
    if stride is not None and not {"sliding", "anchored"} & set(names):
        raise SpecError("--stride belongs to the protocols sliding and anchored; add one, or leave it out")
    if last_k is not None and not {"last", "anchored"} & set(names):
        raise SpecError("--last-k belongs to the protocols last and anchored; add one, or leave it out")
    return [
        ProtocolSpec.model_validate(
            {
                "name": name,
                "stride": _stride(stride) if name in ("sliding", "anchored") else None,
                "last_k": last_k if name in ("last", "anchored") else None,
            }
        )
        for name in names
    ]


def _stride(text: str | None) -> int | None:
    if text is None or text.strip().upper() == "L/2":
        return None
    if not re.fullmatch(r"-?\d{1,9}", text.strip()):
        raise SpecError(f"--stride: {text!r} is no number of tokens; write 256, or L/2 for half of each length")
    return int(text)
