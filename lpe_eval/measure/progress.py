"""How long work tells what it has done: callables that are passed in, since nothing here prints."""

from collections.abc import Callable
from contextlib import AbstractContextManager

Advance = Callable[..., None]
"""advance(done, description=None, left=None): how much more is done, what is being done now, and seconds that are left.

Where nobody gives the seconds, they are reckoned from what is done.
"""

Progress = Callable[[int, str], AbstractContextManager[Advance]]
"""Opens a progress bar over a total of some unit."""

Tell = Callable[[str], None]
"""Takes a sentence that the user should read."""
