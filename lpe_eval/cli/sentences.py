"""How whatever goes wrong becomes a sentence and an exit code."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import typer

from lpe_eval.errors import INTERRUPTED, LaunchLost, LpeEvalError, OutputError
from lpe_eval.out_of_memory import SENTENCE, out_of_memory


@contextmanager
def sentence_for_errors() -> Iterator[None]:
    """Turns the family of errors, and Ctrl-C, into a sentence and an exit code."""
    try:
        yield
    except LpeEvalError as error:
        from lpe_eval.console import error as show
        from lpe_eval.fetched import as_addressed

        show(as_addressed(str(error)))
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:
        # Whoever reads our output has enough of it.
        raise
    except OSError as error:
        if out_of_memory(error):
            _end_without_memory()
        from lpe_eval.console import error as show

        # Whatever of a path or of a disk nobody expected; where one was, the sentence says more.
        where = "" if error.filename is None else f" {str(error.filename)[:200]}"
        show(f"cannot use the file{where}: {error.strerror or error}")
        raise typer.Exit(OutputError.exit_code) from None
    except LaunchLost as error:
        from lpe_eval.console import error as show

        show(str(error))
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        from lpe_eval.console import error as show

        show("interrupted; what was finished is kept, and the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if not out_of_memory(error):
            raise
        _end_without_memory()


def _end_without_memory() -> NoReturn:
    try:
        from lpe_eval.console import error as show

        show(SENTENCE)
    except (MemoryError, ImportError, OSError, RuntimeError):
        # Not even for rich. What is said so needs none.
        with suppress(OSError):
            os.write(2, f"error: {SENTENCE}\n".encode())
    raise typer.Exit(1) from None
