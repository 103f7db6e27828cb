"""What a measurement of recall is, fully resolved: how much of the far context does a model use?"""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_serializer, model_validator

from lpe_eval.errors import SpecError
from lpe_eval.spec.corpus_spec import CorpusSpec
from lpe_eval.spec.device_map import DeviceMap
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.spec.protocol_spec import ProtocolSpec
from lpe_eval.spec.tasks import LARGEST_SEED

TESTS = ("repeat", "needle", "pairs")
LETTERS = 26
"""Values that a needle's is told from by default, and the most pairs: letters of the alphabet."""

_NUMBERS = 10
_LATER = (
    *("tokenizer", "revision", "trust_remote_code", "rope_scaling", "rope_theta", "remap", "as_published"),
    *("device_map", "tensor_parallel", "deterministic", "allow_leak"),
)

Test = Literal["repeat", "needle", "pairs"]


class RecallSpec(BaseModel):
    """How much of the far context a model uses: repeated text, a hidden needle, and keys with values.

    `docs/recall.md` has every test with its formulas.

    Attributes:
        kind: `recall`.
        models: what is measured, each as `-m` takes it: a released name, a folder, or an address such as `hf:org/name`.
        tests: which of `repeat`, `needle` and `pairs`.
        lengths: tokens of the windows, BOS included; the second copy of `repeat` stands half of that behind its source.
        corpus: the text: `python-stdlib`, a path, `hub:org/name`, or the fields below.
        pack: documents joined into one stream, where they are shorter than the longest length.
        seed: of the choice of text and of keys, values and places.
        bos: which windows start with BOS; `auto` does what the tokenizer does.
        passages: what is repeated: `text` of the corpus, or `random` tokens among those that occur in it.
        piece: tokens of running text in a row; a passage is put together of such pieces.
        repeat_tokens: targets that are scored in second copies at every distance.
        prompts: prompts of needles and of pairs at every length.
        needle: the form: `assignment` (`KEY = "q"`), `sentence`, or the prompts of RULER's `niah_single_1`.
        depths: where the needle stands, in percent: 0 is the farthest place from the question, 100 the nearest.
        candidates: values that the right one is told from, with itself; all letters, or ten numbers, where not given.
        pairs: keys of `identifiers`, or keys and values as two `tokens` side by side.
        n_pairs: keys of each prompt of pairs.
        share: the effective length is the longest at which a score keeps this share of that at the shortest length.
        least: the accuracy that the effective length is judged by, instead of `share`.
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
        device_map: where the parts of a model of `hf:` lie, as in `ppl`; it changes no value.
        tensor_parallel: under torchrun, all ranks hold one model of `hf:` together.
        deterministic: the same bits from the same command on CUDA too; changes no value on a CPU.
        allow_leak: measure a model although it sees the future; its rows say so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["recall"] = "recall"
    models: tuple[str, ...] = Field(min_length=1)
    tests: tuple[Test, ...] = Field(default=TESTS, min_length=1)
    lengths: tuple[int, ...] = Field(default=(128, 256, 512, 1024, 2048), min_length=1)
    corpus: CorpusSpec = CorpusSpec(name="python_stdlib")
    pack: bool = False
    seed: int = Field(default=0, ge=-LARGEST_SEED, le=LARGEST_SEED)
    bos: Literal["auto", "always", "never"] = "auto"
    passages: Literal["text", "random"] = "text"
    piece: int = Field(default=64, ge=1)
    repeat_tokens: int = Field(default=8192, ge=1)
    prompts: int = Field(default=8, ge=2, le=500)
    needle: Literal["assignment", "sentence", "niah_single_1"] = "assignment"
    depths: tuple[int, ...] = Field(default=(0, 50, 100), min_length=1)
    candidates: int | None = Field(default=None, ge=2)
    pairs: Literal["identifiers", "tokens"] = "identifiers"
    n_pairs: int = Field(default=4, ge=2)
    share: float = Field(default=0.85, gt=0, le=1)
    least: float | None = Field(default=None, gt=0, le=1)
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
    allow_leak: bool = False

    @model_serializer(mode="wrap")
    def _without_unused(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        unused = {name for name in _LATER if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in write(self).items() if name not in unused}

    @field_validator("tests")
    @classmethod
    def _in_one_order(cls, tests: tuple[Test, ...]) -> tuple[Test, ...]:
        return tuple(each for each in TESTS if each in tests)

    @field_validator("depths")
    @classmethod
    def _parts_of_a_text(cls, depths: tuple[int, ...]) -> tuple[int, ...]:
        for depth in depths:
            if not 0 <= depth <= 100:
                raise ValueError(f"a depth is between 0 (the beginning) and 100 (the end), not {depth}")
        return tuple(sorted(set(depths)))

    @model_validator(mode="after")
    def _possible(self) -> "RecallSpec":
        # What a perplexity run of these models and lengths refuses is refused here in the same words.
        try:
            text = self.text_spec(1)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from error
        object.__setattr__(self, "lengths", text.lengths)
        object.__setattr__(self, "models", text.models)
        odd = next((length for length in self.lengths if length % 2), None)
        if "repeat" in self.tests and odd is not None:
            raise ValueError(f"repeat feeds a passage twice, so its lengths are even, not {odd}")
        if self.needle != "niah_single_1" and (self.candidates or 2) > LETTERS:
            raise ValueError(f"a needle's value is one of {LETTERS} letters, so candidates cannot be {self.candidates}")
        if self.pairs == "identifiers" and self.n_pairs > LETTERS:
            raise ValueError(f"each pair has a letter of its own, so n_pairs is at most {LETTERS}, not {self.n_pairs}")
        return self

    @property
    def told_from(self) -> int:
        """How many values a needle's is told from, its own among them."""
        return self.candidates or (_NUMBERS if self.needle == "niah_single_1" else LETTERS)

    def task(self, test: Test) -> str:
        """What a test with this spec's prompts is called in tables; other prompts are another task."""
        if test == "repeat":
            return "repeat" if self.passages == "text" else "repeat-random"
        if test == "needle":
            named = {"assignment": "needle", "sentence": "needle-sentence"}
            return named.get(self.needle, self.needle)
        return "pairs" if self.pairs == "identifiers" else "pairs-tokens"

    def text_spec(self, max_tokens: int) -> PerplexitySpec:
        """The perplexity run that finds the same models, and text of at least so many tokens."""
        opening = {name: getattr(self, name) for name in _LATER}
        return PerplexitySpec(
            models=self.models, corpus=self.corpus, protocols=(ProtocolSpec(name="nonoverlap"),),
            lengths=self.lengths, max_tokens=max_tokens, bos=self.bos, pack=self.pack, seed=self.seed,
            batch_size=self.batch_size, device=self.device, dtype=self.dtype, attention=self.attention, **opening,
        )  # fmt: skip


def parse_tests(text: str) -> list[str]:
    """Tests as people write them: `repeat,needle`.

    Raises:
        SpecError: one does not exist, or there is none.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in TESTS:
            raise SpecError(f"--tests: there is no {name!r}; known: {', '.join(TESTS)}")
    if not names:
        raise SpecError(f"--tests names none; known: {', '.join(TESTS)}")
    return names


def parse_depths(text: str) -> list[int]:
    """Depths in per cent as people write them: `0,50,100`, or `0:100:+10`.

    Raises:
        SpecError: a part is neither.
    """
    found: list[int] = []
    for part in filter(None, (part.strip().removesuffix("%") for part in text.split(","))):
        first, *rest = part.split(":")
        whole = [each.removeprefix("+") for each in (first, *rest)]
        if len(whole) not in (1, 3) or not all(each.isdecimal() and len(each) < 4 for each in whole):
            raise SpecError(f"--depths: {part!r} is no depth in per cent; write 0,50,100 or 0:100:+10")
        if len(whole) == 1:
            found.append(int(first))
        elif (step := int(whole[2])) > 0:
            found += range(int(first), int(whole[1]) + 1, step)
    if not found:
        raise SpecError("--depths names none; write 0,50,100")
    return found
