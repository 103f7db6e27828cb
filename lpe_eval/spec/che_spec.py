"""What a run of the Chomsky-hierarchy evaluation is: a protocol, encodings or checkpoints, and tasks."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.spec.encoding_spec import EncodingSpec, split_outside
from lpe_eval.spec.fingerprint import fingerprint
from lpe_eval.spec.model_spec import ModelSpec
from lpe_eval.spec.ppl_spec import parse_lengths
from lpe_eval.spec.task_files import protocol_names, tasks_folder
from lpe_eval.spec.tasks import LARGEST_SEED, read_yaml
from lpe_eval.spec.train_spec import refuse_huge

LONGEST_STRING = 1 << 16
"""Longer strings are taken for a slip of the keyboard."""

ModelSelection = Literal["in_range", "extrapolation"]
"""Which run becomes the checkpoint: the most accurate at the in-range lengths, the lower held-out loss
deciding between equals; or, as the papers report, the most accurate beyond training."""

QUIRKS = {
    "dropout": "dropout stays on when a model is scored",
    "one more step": "training takes steps + 1 updates",
    "mean of means": "accuracy is the plain mean of the accuracies of the sub-batches",
    "from 42": "the first length beyond training (41 of 1 to 40) is not scored",
}
"""What the released code does (google-deepmind/randomized_positional_encodings at e8c6474) and this program does
only where `deepmind_compat` asks for it."""


class TestSet(NamedTuple):
    """What a model is asked: lengths in order, strings of each, their seed, and how many go through at once.

    With `mean_of_sub_batches` the accuracy is that of the released code.
    """

    lengths: tuple[int, ...]
    samples: int
    sub_batch: int
    seed: int
    mean_of_sub_batches: bool


class CheProtocol(BaseModel):
    """A file of `tasks/protocols/`: how models are trained on algorithmic problems, and how they are tested.

    Attributes:
        name: the file's name.
        version: grows with every change that moves a value; a test holds the content of each version.
        title: one line for people.
        tasks: what `--tasks all` means.
        layers, width, heads, mlp_width: shape of the encoder, which is post-norm with ReLU.
        dropout: after attention, after the MLP, and after adding absolute positions; in training.
        steps: optimiser steps; fewer where `solved_at` stops a training.
        batch: strings in a step, all of one length, the same for all runs.
        train_lengths: the shortest and the longest string; the length of a step is uniform between them.
        learning_rates: each pair of a rate and a seed is a run. The rate is constant (Adam, no weight decay) between
            `warmup_steps` and `cooldown_steps`.
        warmup_steps: in which the rate rises linearly; the papers have none.
        cooldown_steps: the last steps, in which the rate falls linearly to nothing; the papers have none.
        seeds: of the initial weights, and of nothing else.
        data_seed: of the strings of training, sampled positions and dropout.
        clip_norm: of each run's gradient.
        compute_dtype: of products; weights, norms, softmax and optimiser are float32.
        check_every: steps between two validations, on strings that are not trained on.
        check_samples: strings of each length in a validation.
        solved_at: training stops when every run has this accuracy in a validation; never where it is left out.
        selection: which run is kept as a checkpoint.
        test_lengths: beyond training.
        in_range_lengths: within training, scored and shown apart; validation is at these as well.
        samples: strings of each test length.
        sub_batch: strings that go through the model at once. Positions that are sampled are sampled anew for each.
        test_seed: of the test strings; every model sees the same.
        source: where the numbers come from, what is known and what is not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int = Field(ge=1)
    title: str
    tasks: tuple[str, ...] = Field(min_length=1)
    layers: int = Field(ge=1)
    width: int = Field(ge=1)
    heads: int = Field(ge=1)
    mlp_width: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    train_lengths: tuple[int, int]
    learning_rates: tuple[float, ...] = Field(min_length=1)
    warmup_steps: int = Field(default=0, ge=0)
    cooldown_steps: int = Field(default=0, ge=0)
    seeds: tuple[int, ...] = Field(min_length=1)
    data_seed: int = Field(default=0, ge=-LARGEST_SEED, le=LARGEST_SEED)
    clip_norm: float = Field(default=1.0, gt=0)
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    check_every: int = Field(ge=1)
    check_samples: int = Field(default=512, ge=1)
    solved_at: float | None = Field(default=None, gt=0, le=1)
    selection: ModelSelection = "in_range"
    test_lengths: tuple[int, ...] = Field(min_length=1)
    in_range_lengths: tuple[int, ...] = Field(min_length=1)
    samples: int = Field(default=512, ge=1)
    sub_batch: int = Field(default=64, ge=1)
    test_seed: int = Field(default=1, ge=-LARGEST_SEED, le=LARGEST_SEED)
    source: str = ""

    @field_validator("test_lengths", "in_range_lengths", mode="before")
    @classmethod
    def _as_people_write_them(cls, lengths: Any) -> Any:
        return tuple(parse_lengths(lengths)) if isinstance(lengths, str) else lengths

    @field_validator("test_lengths", "in_range_lengths")
    @classmethod
    def _sorted_and_sane(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        return sane_lengths(lengths)

    @field_validator("learning_rates", "seeds", "tasks")
    @classmethod
    def _each_once(cls, given: tuple) -> tuple:
        return tuple(dict.fromkeys(given))

    @model_validator(mode="after")
    def _lengths_and_heads_fit(self) -> "CheProtocol":
        shortest, longest = self.train_lengths
        if not 1 <= shortest <= longest <= LONGEST_STRING:
            raise ValueError(f"train_lengths {list(self.train_lengths)} must be a shortest and a longest string")
        if max(self.in_range_lengths) > longest:
            raise ValueError(f"in_range_lengths must not exceed the longest trained string, {longest}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        if any(abs(seed) > LARGEST_SEED for seed in self.seeds):
            raise ValueError(f"a seed must be between {-LARGEST_SEED} and {LARGEST_SEED}")
        refuse_huge(self.encoder(EncodingSpec(name="none"), 1, 1, 1))
        if any(rate <= 0 for rate in self.learning_rates):
            raise ValueError("a learning rate must be above zero")
        return self

    @property
    def fingerprint(self) -> str:
        """Hash of everything but the title."""
        return fingerprint(self.model_dump(mode="json", exclude={"title"}))

    @property
    def runs(self) -> tuple[tuple[int, float], ...]:
        """Seed and learning rate of each run that is trained together."""
        return tuple((seed, rate) for rate in self.learning_rates for seed in self.seeds)

    def encoder(self, encoding: EncodingSpec, input_size: int, classes: int, longest_input: int) -> ModelSpec:
        """The model that is trained: DeepMind's encoder with this encoding.

        Args:
            encoding: of positions.
            input_size: token ids of the problem, the empty token not among them.
            classes: answers to choose from.
            longest_input: tokens of the longest assembled string in training; what an encoding takes for its
                train length.
        """
        return ModelSpec(
            encoding=encoding,
            vocab_size=input_size + 1,
            outputs=classes,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            mlp_width=self.mlp_width,
            train_length=longest_input,
            causal=False,
            norm="post",
            activation="relu",
            tied_embeddings=False,
            embedding_scale=self.width**0.5,
            attention_bias=False,
            head_bias=True,
            initial_weights="fan_in",
            dropout=self.dropout,
        )


class CheSpec(BaseModel):
    """One `lpe-eval che`: trains encoders and scores them, or scores checkpoints.

    Neither `lengths`, `samples` and `seed` nor `tasks` changes a training.

    Attributes:
        kind: `che`.
        encodings: what is trained under `protocol`; or else `models`.
        models: folders of encoders, each with the protocol it was trained under, or released ones by name.
        protocol: how encoders are trained and tested; the fields below.
        tasks: problems from `list problems`, or `all` of the protocol.
        lengths: lengths of strings that are scored, within training and beyond, instead of the protocol's.
        samples: strings of each length, instead of the protocol's.
        seed: of the test strings, instead of the protocol's.
        deepmind_compat: do what the released code does where it differs: dropout stays on in scoring, one more step,
            a mean over sub-batches, and the first length beyond training is left out.
        device: `cpu`, `cuda`, `mps`; `auto` takes CUDA where there is one, else the CPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["che"] = "che"
    encodings: tuple[EncodingSpec, ...] = ()
    models: tuple[str, ...] = ()
    protocol: CheProtocol | None = None
    tasks: tuple[str, ...] | Literal["all"] = "all"
    lengths: tuple[int, ...] | None = None
    samples: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=-LARGEST_SEED, le=LARGEST_SEED)
    deepmind_compat: bool = False
    device: str = "auto"

    @field_validator("encodings", "models")
    @classmethod
    def _each_once(cls, given: tuple) -> tuple:
        return tuple(each for place, each in enumerate(given) if each not in given[:place])

    @field_validator("tasks")
    @classmethod
    def _one_spelling(cls, tasks: tuple[str, ...] | str) -> tuple[str, ...] | str:
        return tasks if isinstance(tasks, str) else tuple(dict.fromkeys(each.replace("-", "_") for each in tasks))

    @field_validator("lengths")
    @classmethod
    def _sorted_and_sane(cls, lengths: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if lengths is None else sane_lengths(lengths)

    @model_validator(mode="after")
    def _trains_or_scores(self) -> "CheSpec":
        if bool(self.encodings) == bool(self.models):
            raise ValueError("name encodings to train or models to score, one of the two")
        if bool(self.encodings) != (self.protocol is not None):
            raise ValueError("a protocol belongs to encodings; checkpoints bring their own")
        return self

    def test_set(self, protocol: CheProtocol, shortest: int) -> TestSet:
        """What a model is asked that was trained under `protocol`, on a problem with strings from `shortest` on."""
        lengths = self.lengths or sane_lengths((*protocol.in_range_lengths, *protocol.test_lengths))
        skipped = protocol.train_lengths[1] + 1 if self.deepmind_compat else None
        return TestSet(
            tuple(length for length in lengths if length >= shortest and length != skipped),
            self.samples or protocol.samples,
            protocol.sub_batch,
            protocol.test_seed if self.seed is None else self.seed,
            self.deepmind_compat,
        )


def sane_lengths(lengths: Iterable[int]) -> tuple[int, ...]:
    """Lengths in order and each once; ValueError where one is out of bounds."""
    for length in lengths:
        if not 1 <= length <= LONGEST_STRING:
            raise ValueError(f"a length must be between 1 and {LONGEST_STRING}, not {length}")
    return tuple(sorted(set(lengths)))


def read_protocol(name: str) -> CheProtocol:
    """The protocol called `name`, or the one in the YAML file at that path.

    Raises:
        UnknownName: no protocol has that name.
        SpecError: the file is not a protocol.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in protocol_names():
            raise UnknownName("protocol", name, protocol_names())
        path = tasks_folder() / "protocols" / f"{name}.yaml"
    protocol = read_yaml(path, CheProtocol)
    if protocol.name != path.stem:
        raise SpecError(f"{path} calls itself {protocol.name!r}; a protocol is named like its file")
    return protocol


def parse_encoding_list(texts: Iterable[str]) -> list[EncodingSpec]:
    """Encodings as people write them: several flags, each one or several with commas outside parentheses.

    Raises:
        SpecError: one is none, or there is none.
    """
    names = [name.strip() for text in texts for name in split_outside(text) if name.strip()]
    if not names:
        raise SpecError("--encoding names none; write alibi, or dape(kerple_log), or several with commas")
    return [EncodingSpec.parse(name) for name in names]
