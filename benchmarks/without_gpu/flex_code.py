"""What PyTorch's compiler writes for the functions of `flex_kernels.py`, on a pretended card."""

from typing import Any

import torch

from lpe_eval.model import flex_kernels
from lpe_eval.model.build import build_encodings
from lpe_eval.model.encoding import Encoding, Geometry
from lpe_eval.model.positions import run_on
from lpe_eval.spec.encoding_spec import EncodingSpec

META = torch.device("meta")


class Written(Exception):
    """The code was written and is not run."""


class Module:
    """What stands for a compiled module."""

    __file__ = __name__ = "pretended"

    def call(self, *_: object) -> None:
        """Ends where a kernel would be launched."""
        raise Written


def encoding(name: str, heads: int, width: int) -> Encoding:
    """An encoding without values."""
    return build_encodings(EncodingSpec.parse(name), Geometry(heads, width, heads * width, 512, True), 1)[0].to(META)


def code_of(name: str, heads: int, width: int, dtype: torch.dtype, train: bool) -> list[str]:
    """The source of the forward kernel, and with `train` of the backward one."""
    import torch._inductor.graph as graph
    import torch._inductor.kernel.flex.flex_attention
    import torch.nn.attention.flex_attention as front
    from torch._guards import detect_fake_mode
    from torch._inductor.compile_fx import compile_fx

    found: list[str] = []

    def written(self: Any) -> Module:
        code = self.codegen()[0]
        found.append(getattr(code, "value", str(code)))
        return Module()

    graph.GraphLowering.compile_to_module = written  # pyright: ignore[reportAttributeAccessIssue]
    checks: Any = front
    checks._validate_device = lambda *_: None

    def backend(traced: torch.fx.GraphModule, examples: Any) -> Any:
        on_card: list[Any] = []
        with detect_fake_mode(examples):  # pyright: ignore[reportOptionalContextManager]
            for node in traced.graph.nodes:
                if node.op == "placeholder":
                    each = node.meta["example_value"]
                    if isinstance(each, torch.Tensor):
                        there = torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device="cuda")
                        each = there.requires_grad_(each.requires_grad)
                    on_card.append(each)
        return compile_fx(traced, on_card)

    torch._dynamo.reset()
    flex: Any = flex_kernels
    flex.compiled = lambda function: torch.compile(function, dynamic=True, fullgraph=True, backend=backend)
    member, shape = encoding(name, heads, width), (2, heads, 1024, width)
    q, k, v = (torch.empty(shape, dtype=dtype, device=META, requires_grad=train) for _ in range(3))
    try:
        with torch.set_grad_enabled(train):
            flex_kernels.attend(q, k, v, member.ratio_bias() or member, run_on(1024, META), True)
    except Written:
        pass
    return found
