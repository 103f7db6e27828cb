"""How long work tells what it has done: callables that are passed in, since nothing here prints."""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager

Advance = Callable[..., None]
"""advance(done, description=None, left=None): how much more is done, what is being done now, and seconds that are left.

Where nobody gives the seconds, they are reckoned from what is done.
"""


def takes_left(advance: Advance) -> bool:
    """Whether it takes the seconds that are left; a bar of somebody else's may reckon by itself."""
    return "left" in inspect.signature(advance).parameters


Progress = Callable[[int, str], AbstractContextManager[Advance]]
"""Opens a progress bar over a total of some unit."""

Tell = Callable[[str], None]
"""Takes a sentence that the user should read."""
