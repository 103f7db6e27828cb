"""Each path against the dense oracle: values and gradients."""

from typing import Any

import torch
from torch import Tensor

from cuda_sections.setting import Setting, built, inputs
from lpe_eval.model.attention import AttentionPath, choose
from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.mask import Mask


def check(setting: Setting) -> None:
    """Values and gradients against the dense path in float32."""
    short = torch.bfloat16
    full = [(1, 512, 512), (1, 300, 300), (1, 130, 300), (2, 384, 384), (1, 1, 1), (1, 7, 45)]
    plans: list[tuple[str, torch.dtype, bool, list[tuple[int, int, int]]]] = []
    for name in ("dape 32", "alibi", "fire"):
        plans += [(name, short, True, full), (name, torch.float32, True, full[1:3])]
        plans += [(name, short, False, full[:3]), (name, torch.float32, False, full[1:2])]
    for name in ("dape 8", "dape alibi", "dape none", "kerple_log", "t5", "sandwich", "mep", "none", "dape_v2", "cope"):
        plans += [(name, short, True, full[:2]), (name, torch.float32, True, full[1:2])]
    for name, dtype, causal, sizes in plans:
        encoding = built(name, setting, causal, train_length=64)
        for batch, rows, length in sizes:
            if setting.late():
                return
            facts = {"encoding": name, "dtype": str(dtype)[6:], "causal": causal, "size": [batch, rows, length]}
            with setting.case(**facts) as result, torch.no_grad():
                result["path"], path = choose("auto", encoding, setting.device)
                q, k, v = inputs(setting, length, dtype, rows, batch)
                at = torch.arange(length, device=setting.device)
                ours = path.attend(q, k, v, encoding, at, Mask(causal)).float()
                wanted = Dense.attend(q.float(), k.float(), v.float(), encoding, at, Mask(causal))
                compare(result, "values", ours, wanted, 1e-2 if dtype == short else 1e-5)
    for name, dtype in (
        ("alibi", short),
        ("kerple_log", short),
        ("kerple_log", torch.float32),
        ("dape 32", short),
        ("fire", short),
    ):
        if setting.late():
            return
        with setting.case(encoding=name, dtype=str(dtype)[6:], causal=True, size=[1, 512, 512]) as result:
            encoding = built(name, setting, train_length=64)
            result["path"], path = choose("auto", encoding, setting.device)
            drawn = inputs(setting, 512, dtype)
            ours = gradients(path, drawn, encoding)
            wanted = gradients(Dense, [each.float() for each in drawn], encoding)
            # A gradient that is zero but for rounding has no relative error of its own.
            floor = max(each.abs().max().item() for each in wanted) * 1e-2
            for label, mine, other in zip(("q", "k", "v", *names_of(encoding)), ours, wanted, strict=True):
                compare(result, f"d {label}", mine, other, 5e-2 if dtype == short else 1e-4, floor)


def names_of(encoding: Encoding) -> list[str]:
    """The learned parameters."""
    return [name for name, _ in encoding.named_parameters()]


def gradients(path: type[AttentionPath], drawn: list[Tensor], encoding: Encoding) -> list[Tensor]:
    """Of a weighted sum of the context, by queries, keys, values and parameters."""
    q, k, v = (each.detach().requires_grad_() for each in drawn)
    context = path.attend(q, k, v, encoding, torch.arange(k.shape[2], device=k.device), Mask())
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
        result["status"] = "wrong"
