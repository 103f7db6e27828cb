"""Which protocol cuts documents into windows, and its numbers; what they do stands in `data/windows.py`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class ProtocolSpec(BaseModel):
    """One way to cut and to score.

    Attributes:
        name: which protocol.
        stride: `sliding`: tokens from one window to the next; where it is left out, half of each length ("L/2").
            `anchored`: tokens from one block to the next; `windows.resolve` chooses where it is left out.
        last_k: `last` and `anchored` only: targets scored in a window; `windows.resolve` chooses where it is left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["nonoverlap", "sliding", "last", "anchored"]
    stride: int | None = None
    last_k: int | None = None

    def __str__(self) -> str:
        if self.name == "sliding":
            return f"sliding(stride={'L/2' if self.stride is None else self.stride})"
        return self.name if self.last_k is None else f"{self.name}(k={self.last_k})"
