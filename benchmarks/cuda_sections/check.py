"""Each path against the dense oracle: values and gradients."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cuda_sections.setting import Setting, built, inputs
from lpe_eval.model.attention import AttentionPath, choose
from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.falling_back import attended, taken
from lpe_eval.model.mask import Mask
from lpe_eval.model.positions import run_on

FULL = [(1, 512, 512), (1, 300, 300), (1, 130, 300), (2, 384, 384), (1, 1, 1), (1, 7, 45)]
SHORT = torch.bfloat16


def first_values(setting: Setting) -> None:
    """DAPE, ALiBi and FIRE against the dense path in float32."""
    for name in ("dape 32", "alibi", "fire"):
        values(setting, name, SHORT, True, FULL)
        values(setting, name, torch.float32, True, FULL[1:3])


def gradients(setting: Setting) -> None:
    """Gradients against the dense path in float32, learned rows of values first."""
    for name, dtype in (
        ("kerple_log", SHORT),
        ("t5", SHORT),
        ("kerple_log", torch.float32),
        ("alibi", SHORT),
        ("dape 32", SHORT),
        ("fire", SHORT),
    ):
        if setting.late():
            return
        with setting.case(encoding=name, dtype=str(dtype)[6:], causal=True, size=[1, 512, 512]) as result:
            encoding = built(name, setting, train_length=64)
            result["path"], path = choose("auto", encoding, setting.device)
            drawn = inputs(setting, 512, dtype)
            with taken() as paths:
                ours = gradients_of(path, drawn, encoding)
            result["path"], result["note"] = paths.paths(result["path"]), paths.note
            wanted = gradients_of(Dense, [each.float() for each in drawn], encoding)
            # A gradient that is zero but for rounding has no relative error of its own.
            floor = max(each.abs().max().item() for each in wanted) * 1e-2
            for label, mine, other in zip(("q", "k", "v", *names_of(encoding)), ours, wanted, strict=True):
                compare(result, f"d {label}", mine, other, 5e-2 if dtype == SHORT else 1e-4, floor)


def other_values(setting: Setting) -> None:
    """The other encodings, and models that read in both directions."""
    for name in ("dape 8", "dape alibi", "dape none", "kerple_log", "t5", "sandwich", "mep", "none", "dape_v2", "cope"):
        values(setting, name, SHORT, True, FULL[:2])
        values(setting, name, torch.float32, True, FULL[1:2])
    for name in ("dape 32", "alibi", "fire"):
        values(setting, name, SHORT, False, FULL[:3])
        values(setting, name, torch.float32, False, FULL[1:2])


def values(
    setting: Setting, name: str, dtype: torch.dtype, causal: bool, sizes: Sequence[tuple[int, int, int]]
) -> None:
    """One encoding at several sizes."""
    if setting.late():
        return
    encoding = built(name, setting, causal, train_length=64)
    for batch, rows, length in sizes:
        if setting.late():
            return
        facts = {"encoding": name, "dtype": str(dtype)[6:], "causal": causal, "size": [batch, rows, length]}
        with setting.case(**facts) as result, torch.no_grad():
            asked, path = choose("auto", encoding, setting.device)
            q, k, v = inputs(setting, length, dtype, rows, batch)
            at = run_on(length, setting.device)
            with taken() as paths:
                ours = attended(path, q, k, v, encoding, at, Mask(causal)).float()
            result["path"], result["note"] = paths.paths(asked), paths.note
            wanted = Dense.attend(q.float(), k.float(), v.float(), encoding, at, Mask(causal))
            compare(result, "values", ours, wanted, 1e-2 if dtype == SHORT else 1e-5)


def names_of(encoding: Encoding) -> list[str]:
    """The learned parameters."""
    return [name for name, _ in encoding.named_parameters()]


def gradients_of(path: type[AttentionPath], drawn: list[Tensor], encoding: Encoding) -> list[Tensor]:
    """Of a weighted sum of the context, by queries, keys, values and parameters."""
    q, k, v = (each.detach().requires_grad_() for each in drawn)
    context = attended(path, q, k, v, encoding, run_on(k.shape[2], k.device), Mask())
    weights = torch.randn(context.shape, generator=torch.Generator().manual_seed(1)).to(context.device)
    found = torch.autograd.grad((context.float() * weights).sum(), [q, k, v, *encoding.parameters()], allow_unused=True)
    return [torch.zeros(()) if each is None else each.float() for each in found]


def compare(
    result: dict[str, Any], what: str, ours: Tensor, wanted: Tensor, allowed: float, floor: float = 0.0
) -> None:
    """Notes the relative error in the norm, the largest error, and whether the former is allowed."""
    error = ours.to(wanted.device) - wanted
    relative = error.norm().item() / max(wanted.norm().item(), floor * wanted.numel() ** 0.5, 1e-30)
    result.setdefault("errors", {})[what] = {"relative": relative, "largest": error.abs().max().item()}
    if not relative <= allowed:
        result["status"] = "failed"
        result["why"] = f"{what}: relative error {relative:.2g}, allowed {allowed:.2g}"
