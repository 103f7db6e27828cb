"""What happens to a language model when the text gets longer than it was trained on.

`ppl`, `recall`, `che`, `open` and `read` are the Python interface, which `docs/python.md` explains. They are imported
when they are asked for, so that `import lpe_eval` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lpe_eval.interface import Compared, Figures, Model, Run, che, open, ppl, read, recall

__version__ = "0.1.0"

__all__ = ["Compared", "Figures", "Model", "Run", "__version__", "che", "open", "ppl", "read", "recall"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("lpe_eval.interface"), name)
    raise AttributeError(f"module 'lpe_eval' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
