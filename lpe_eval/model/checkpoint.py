"""The contract of a checkpoint format, and how a reference becomes a model.

A reference is a path whose content tells its format, a path or another address behind a format's
prefix (`native:runs/mine`, `hf:org/name@revision`, `py:model.py:make?width=64`), or the name of a
released checkpoint (`alibi`). A prefix is a format's name or its short name: hf, neox, py. A path may be
an address of object storage (`s3://bucket/mine`, `native:s3://bucket/mine?rope_theta=500000`); then a copy
of the files that are needed is made in the cache, and a run says what it would say of a folder.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch

from lpe_eval.addresses import typed_address, without_protocol
from lpe_eval.errors import CheckpointError, SpecError, UnknownName
from lpe_eval.fetched import as_addressed
from lpe_eval.model.at_address import copy_of_checkpoint
from lpe_eval.model.foreign.bare_weights import how_to_open
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.model.unchanged import stamps
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.plain import at_home
from lpe_eval.registry import ATTENTIONS, CHECKPOINTS
from lpe_eval.screen import visible
from lpe_eval.spec.released import names_of_other_text, released_folder, released_names

CHANGED = "the checkpoint {} changed while it was being measured; run again"

HEEDED = ("revision", "rope_scaling", "rope_theta", "remap", "as_published", "device_map", "tensor_parallel")
"""Options that only some formats can obey."""

SHORT_NAMES = {"hf": "huggingface", "neox": "gpt_neox", "py": "python"}


class LoadOptions(NamedTuple):
    """How a checkpoint is opened and put on a device.

    The fields after `attention` suit some formats only; see `CheckpointFormat.heeds`.

    Attributes:
        device: where it runs.
        dtype: of its weights.
        attention: an attention path, or "auto".
        tokenizer: instead of the one the checkpoint names.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: whether Python code beside the weights may be run.
        rope_scaling: a rule for RoPE's frequencies, `yarn:4` or JSON.
        rope_theta: RoPE's base.
        remap: other distances for RoPE, `self_extend:group=8,window=1024`.
        as_published: keep the rows that pad a vocabulary in the softmax.
        device_map: where its parts lie, `auto` or a place for each part by its name; see `spec/device_map.py`.
        tensor_parallel: whether all ranks of torchrun hold it together.
        lengths: tokens of the windows that will be measured, for a model that does not run on others.
    """

    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    attention: str = "auto"
    tokenizer: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    rope_scaling: str | None = None
    rope_theta: float | None = None
    remap: str | None = None
    as_published: bool = False
    device_map: str | Mapping[str, str] | None = None
    tensor_parallel: bool = False
    lengths: tuple[int, ...] = ()


class Peek(NamedTuple):
    """What a run is planned with, known before any weight is loaded."""

    name: str
    tokenizer: str
    digest: str
    """SHA-256 over weights and config: equal digests, equal model."""


class CheckpointFormat(ABC):
    """One way the world writes checkpoints; members hold no state."""

    heeds: ClassVar[frozenset[str]] = frozenset()
    """Which of `HEEDED` it obeys; the others are refused when they are set."""

    @classmethod
    def attentions(cls) -> Sequence[str]:
        """What `LoadOptions.attention` may be, beside "auto"."""
        return ATTENTIONS.names()

    @classmethod
    @abstractmethod
    def recognises(cls, path: Path) -> bool:
        """Whether the content at `path` is of this format and of no other; reads as little as it can."""

    @classmethod
    @abstractmethod
    def peek(cls, path: str | Path, options: LoadOptions) -> Peek:
        """Reads the config and hashes the files.

        Args:
            path: what stands behind the prefix; not every format's address is a path.
            options: those that change which model it is, or whether it may be opened, matter.

        Raises:
            CheckpointError: a file is missing or the config is not one.
        """

    @classmethod
    def stored_types(cls, path: str | Path) -> list[str]:
        """The floating types of the weights on disk, sorted, such as "float16"; empty where that cannot be told.

        Nothing is loaded: `weight_files.stored_types` reads the heads of files.

        Raises:
            CheckpointError: a weight file is damaged.
        """
        return []

    @classmethod
    @abstractmethod
    def load(cls, path: str | Path, options: LoadOptions) -> LanguageModel:
        """Opens the checkpoint strictly.

        Raises:
            CheckpointError: something is missing, unexpected, of another shape, or unreadable.
        """


class Located(NamedTuple):
    """A checkpoint that has been found and not yet opened."""

    format: type[CheckpointFormat]
    path: str | Path

    def peek(self, options: LoadOptions) -> Peek:
        """The format's `peek`, with the tokenizer that `options` asks for.

        Raises:
            SpecError: an option is set that the format would ignore.
            CheckpointError: a file is missing or the config is not one.
        """
        self._refuse_unheeded(options)
        with _told(self.path):
            found = self.format.peek(self.path, options)
        found = found._replace(name=visible(found.name))
        return found if options.tokenizer is None else found._replace(tokenizer=options.tokenizer)

    def load(self, options: LoadOptions) -> LanguageModel:
        """The format's `load`.

        Raises:
            SpecError: an option is set that the format would ignore.
            CheckpointError: it cannot be opened exactly as it is.
        """
        self._refuse_unheeded(options)
        with _told(self.path):
            return self.format.load(self.path, options)

    def load_planned(self, options: LoadOptions, planned: Peek) -> LanguageModel:
        """The format's `load`, of the very checkpoint that `peek` saw.

        Every format hashes what it loads. One that hashes first and reads then is asked again where a file has changed
        while it was loaded.

        Raises:
            SpecError: an option is set that the format would ignore.
            CheckpointError: it cannot be opened exactly as it is, or is another one by now.
        """
        before = stamps(self.path)
        model = self.load(options)
        if model.facts.digest == planned.digest and stamps(self.path) == before:
            return model
        now = self.peek(options).digest
        if {model.facts.digest, now} == {planned.digest}:
            return model
        where = str(self.path)[:200]
        if len({planned.digest, model.facts.digest, now}) == 3:
            raise CheckpointError(f"{where} is another model each time it is opened; draw its weights from a seed")
        raise CheckpointError(CHANGED.format(where))

    def stored_types(self) -> list[str]:
        """The format's `stored_types`."""
        return self.format.stored_types(self.path)

    def _refuse_unheeded(self, options: LoadOptions) -> None:
        if options.attention != "auto" and options.attention not in self.format.attentions():
            raise UnknownName(f"attention path for {self.path}", options.attention, self.format.attentions())
        for name in HEEDED:
            if getattr(options, name) not in (None, False) and name not in self.format.heeds:
                raise SpecError(
                    f"--{name.replace('_', '-')} has no effect on {self.path}, which is opened as "
                    f"{self.format.__name__}; measure it in a run without that flag"
                )


def locate(reference: str) -> Located:
    """The format and the address that `reference` names, without loading any weight.

    Raises:
        CheckpointError: nothing is there, no format knows it, or several do.
        UnknownName: no format or no released checkpoint has that name.
        SpecError, MissingExtra: see `addresses.opened`.
    """
    reference = _copied(reference)
    prefix, colon, rest = reference.partition(":")
    name = SHORT_NAMES.get(prefix, prefix.replace("-", "_"))
    if colon and name in CHECKPOINTS.names():
        if not rest:
            raise CheckpointError(f"{reference} names no checkpoint; write {prefix}: and where it is")
        # A shell writes ~ out where it stands alone, and not behind a prefix.
        return Located(CHECKPOINTS.load(name), at_home(rest))
    path = Path(at_home(reference))
    with _told(reference):
        if path.exists():
            return Located(_format_of(path), path)
        address, question, settings = reference.partition("?")
        place = Path(at_home(address))
        if question and address and place.exists():
            return Located(_format_of(place), f"{place}?{settings}")
    if colon and prefix.replace("-", "_").replace("_", "").isalnum() and len(prefix) > 1:
        raise UnknownName("checkpoint format", prefix, [*CHECKPOINTS.names(), *SHORT_NAMES])
    if "/" in reference or "\\" in reference or ".py:" in reference:
        hint = f"; a model of the Hub is written hf:{reference}" if reference.count("/") == 1 else ""
        hint = f"; a function of yours is written py:{reference}" if ".py:" in reference else hint
        raise CheckpointError(f"there is no checkpoint at {reference}{hint}")
    folder = released_folder(address)
    if folder is None:
        known = [*released_names(), *names_of_other_text()]
        raise UnknownName("released checkpoint (and no folder)", address, known)
    return Located(CHECKPOINTS.load("native"), f"{folder}?{settings}" if question else folder)


def _copied(reference: str) -> str:
    """The same reference with a copy on this machine in the place of an address."""
    prefix, colon, rest = reference.partition(":")
    behind = "" if rest.startswith("//") else f"{prefix}{colon}"
    address, question, settings = (rest if behind else reference).partition("?")
    if "://" not in address:
        return reference
    if typed_address(address) is None:
        return f"{behind}{without_protocol(address)}{question}{settings}"
    if SHORT_NAMES.get(prefix, prefix) == "python":
        raise CheckpointError(f"{reference}: code is not run from an address; copy it and name the file")
    return f"{behind}{copy_of_checkpoint(address)}{question}{settings}"


@contextmanager
def _told(where: str | Path) -> Iterator[None]:
    """One sentence for files that vanish or cannot be read, and for models that are larger than the memory.

    A copy of what is at an address is called by its address.
    """
    try:
        yield
    except CheckpointError as error:
        if (said := as_addressed(str(error))) == str(error):
            raise
        raise type(error)(said) from error.__cause__
    except OSError as error:
        raise CheckpointError(f"{str(where)[:200]} cannot be read: {error.strerror or error}") from error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise CheckpointError(f"{where} does not fit into memory; use a smaller --dtype or another --device") from error


def _format_of(path: Path) -> type[CheckpointFormat]:
    where = as_addressed(str(path))
    claims = [name for name in CHECKPOINTS.names() if CHECKPOINTS.load(name).recognises(path)]
    if len(claims) == 1:
        return CHECKPOINTS.load(claims[0])
    if claims:
        choices = " or ".join(f"{name}:{where}" for name in claims)
        raise CheckpointError(f"{where} looks like several formats at once; write {choices}")
    if how := how_to_open(path):
        raise CheckpointError(f"{where} is not a checkpoint of any known format: {how}")
    raise CheckpointError(
        f"{where} is not a checkpoint of any known format ({', '.join(CHECKPOINTS.names())}); "
        "a native one is a folder with config.yaml and model.safetensors, a Hugging Face one has config.json"
    )
