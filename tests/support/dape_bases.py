"""The encodings that golden cases of DAPE wrap."""

from typing import Any

from tests.support.golden_cases import Case


def dape_base(case: Case) -> dict[str, Any]:
    """The encoding that a golden case wraps, told by the parameters it stores."""
    if "c" in case.params:
        threshold = float(case.params["init_L"])
        hidden = case.fields["mlp_width"]
        return {"name": "fire", "activation": "leaky_relu", "threshold": threshold, "hidden": hidden}
    return {"name": "kerple_log" if "bias_p" in case.params else "alibi" if "slopes" in case.params else "none"}


def base_of(case: Case) -> list[str]:
    """Its registry name."""
    return [dape_base(case)["name"]]
