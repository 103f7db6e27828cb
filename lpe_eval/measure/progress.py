"""How long work tells what it has done: callables that are passed in, since nothing here prints."""

from collections.abc import Callable
from contextlib import AbstractContextManager

Advance = Callable[..., None]
"""advance(done, description=None): how much more is done, and what is being done now."""

Progress = Callable[[int, str], AbstractContextManager[Advance]]
"""Opens a progress bar over a total of some unit."""

Tell = Callable[[str], None]
"""Takes a sentence that the user should read."""
