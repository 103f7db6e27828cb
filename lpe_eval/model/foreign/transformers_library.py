"""The library `transformers` itself: imported when it is needed, kept quiet, and its failures told in one sentence."""

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lpe_eval.errors import CheckpointError, LpeEvalError, MissingExtra
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.plain import first_line

_OLDEST = (4, 51)
"""Before it the sliding window of some models was left out, so that their numbers at long lengths were wrong."""


def import_transformers() -> Any:
    """The library.

    Raises:
        MissingExtra: it is not installed.
        CheckpointError: it is too old.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("a Hugging Face model", "hf") from error
    version = str(transformers.__version__)
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise CheckpointError(
            f"transformers {version} leaves out the sliding window of some models; take {oldest} or newer: "
            "pip install -U 'lpe-eval[hf]'"
        )
    return transformers


def major(transformers: Any) -> int:
    """The first number of the library's version."""
    return int(transformers.__version__.partition(".")[0])


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """No bars and no chatter on the terminal while `transformers` loads."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def failures_told(where: str, local: bool) -> Iterator[None]:
    """One sentence for whatever `transformers` raises."""
    try:
        yield
    except LpeEvalError:
        raise
    except Exception as error:
        # A config may hold anything anywhere, and the library asks it nothing before it uses it.
        if out_of_memory(error):
            raise
        text = str(error)
        if "trust_remote_code" in text:
            raise CheckpointError(
                f"{where} needs Python code that comes with the checkpoint; if you trust its authors, "
                "add --trust-remote-code"
            ) from error
        if not local and isinstance(error, OSError):
            raise CheckpointError(
                f"{where} is neither a local folder, nor in the cache, nor to be had from the Hub: "
                f"{first_line(error)}; check the id, or fetch it where there is a network"
            ) from error
        if isinstance(error, ModuleNotFoundError) and error.name:
            package = error.name.partition(".")[0]
            raise CheckpointError(
                f"{where} needs the module {error.name}, which is not installed: pip install {package}"
            ) from error
        refused = _refused_pickle(error)
        if refused is not None:
            raise CheckpointError(
                f"{where}: a weight file is no plain tensors but asks for {refused}, which could run any code and is "
                "refused; have its authors convert it to safetensors"
            ) from error
        raise CheckpointError(f"{where} cannot be opened: {first_line(error)}") from error


def _refused_pickle(error: BaseException | None) -> str | None:
    """What a refused pickle asked for, if that is the error or lies behind it."""
    found = None
    while error is not None:
        text = str(error)
        if isinstance(error, pickle.UnpicklingError) or "weights only" in text.lower().replace("_", " "):
            named = re.search(r"GLOBAL (\S+)", text)
            found = named[1] if named else found or "something that is not allowed"
        error = error.__cause__ or error.__context__
    return found
