"""Which targets are key tokens (LongPPL), as it is asked for; `report/numbers/key_tokens.py` says what they are.

self           the model that is measured, by its own losses with a short and with a long context
model:NAME     another model of the same run, whose tokenizer may be another one
spans:PATH     stored: a folder of the released code, or `key_tokens.jsonl` of an earlier run
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lpe_eval.errors import SpecError

_KINDS = ("model", "spans")


class KeyTokensSpec(BaseModel):
    """How key tokens are chosen and weighed; the defaults are those of the released code.

    Attributes:
        by: `self`, `model:NAME` or `spans:PATH`.
        gain: nats by which the loss of a key token falls, at least, when the context grows (alpha there).
        loss: nats below which it is with the long context (-beta there).
        short: length with the short context; None is the shortest of the run. The long one is the longest.
        weighting: `tokens`: every target counts once. `released` adds the perplexity of all targets as the released
            code takes its mean over documents, in which one of n targets weighs n + 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    gain: float = Field(default=2.0, allow_inf_nan=False)
    loss: float = Field(default=2.0, allow_inf_nan=False)
    short: int | None = None
    weighting: Literal["tokens", "released"] = "tokens"

    @field_validator("by")
    @classmethod
    def _of_a_kind(cls, by: str) -> str:
        kind, _, rest = by.partition(":")
        if by != "self" and (kind not in _KINDS or not rest):
            raise ValueError(f"key tokens are chosen by self, model:NAME or spans:PATH, not by {by!r}")
        return by

    @property
    def model(self) -> str | None:
        """The model that chooses for all, if one does."""
        return self.by.partition(":")[2] if self.by.startswith("model:") else None

    @property
    def path(self) -> str | None:
        """Where key tokens are stored, if they are."""
        return self.by.partition(":")[2] if self.by.startswith("spans:") else None


def parse_key_tokens(
    by: str | None, gain: float | None, loss: float | None, short: int | None, weighting: str | None
) -> dict[str, object] | None:
    """The fields of a spec from flags; None where key tokens are not asked for.

    Raises:
        SpecError: a flag says how key tokens are chosen, and none are asked for.
    """
    flags = {"gain": gain, "loss": loss, "short": short, "weighting": weighting}
    given = {name: value for name, value in flags.items() if value is not None}
    if by is None:
        if given:
            raise SpecError(f"--key-{next(iter(given))} belongs to --key-tokens; add it, such as --key-tokens self")
        return None
    return {"by": by, **given}
