"""How whatever goes wrong becomes a sentence and an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from lpe_eval.errors import INTERRUPTED, LpeEvalError, OutputError


@contextmanager
def sentence_for_errors() -> Iterator[None]:
    """Turns the family of errors, and Ctrl-C, into a sentence and an exit code."""
    try:
        yield
    except LpeEvalError as error:
        from lpe_eval.console import error as show

        show(str(error))
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:
        # Whoever reads our output has enough of it.
        raise
    except OSError as error:
        from lpe_eval.console import error as show

        # Whatever of a path or of a disk nobody expected; where one was, the sentence says more.
        where = "" if error.filename is None else f" {str(error.filename)[:200]}"
        show(f"cannot use the file{where}: {error.strerror or error}")
        raise typer.Exit(OutputError.exit_code) from None
    except KeyboardInterrupt:
        from lpe_eval.console import error as show

        show("interrupted; what was finished is kept, and the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None
