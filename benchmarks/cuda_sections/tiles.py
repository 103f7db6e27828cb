"""Other tiles for the kernels."""

import statistics
from collections.abc import Callable
from functools import partial

import torch

from cuda_sections.setting import Setting, built, inputs
from cuda_sections.timing import seconds_of
from lpe_eval.model import flex_kernels, fused_kernel
from lpe_eval.model.attentions import flex, fused
from lpe_eval.model.mask import Mask
from lpe_eval.model.positions import run_on


def tiles(setting: Setting) -> None:
    """Other tiles for DAPE's kernel, and for FlexAttention's."""
    if setting.device.type != "cuda":
        return
    length = setting.lengths[-1]
    drawn, at = inputs(setting, length, setting.dtype), run_on(length, setting.device)
    with torch.no_grad():
        encoding = built("dape 32", setting)
        shapes = [(32, 16, 8, 16), (16, 16, 8, 32), (16, 16, 4, 32), (32, 16, 16, 16), (16, 32, 8, 32), (32, 32, 8, 16)]
        for shape in shapes:
            if setting.late():
                return
            with setting.case(path="fused", tile=shape) as result:
                fused_kernel.TILES = (fused_kernel.Tile(*shape),)
                result["milliseconds"] = several(lambda: fused.Fused.attend(*drawn, encoding, at, Mask()), setting)
        for name, tile in (("alibi", (128, 64, 8, 2)), ("alibi", (128, 128, 8, 2)), ("alibi", (64, 64, 4, 2)),
                           ("fire", (128, 64, 8, 2)), ("fire", (128, 32, 8, 1)), ("fire", (64, 32, 4, 2))):  # fmt: skip
            if setting.late():
                return
            with setting.case(path="flex", encoding=name, tile=tile) as result:
                encoding = built(name, setting)
                names = ("fwd_BLOCK_M", "fwd_BLOCK_N", "fwd_num_warps", "fwd_num_stages")
                options = {
                    "FORCE_USE_FLEX_ATTENTION": True,
                    "IS_DIVISIBLE": True,
                    **dict(zip(names, tile, strict=True)),
                }
                flex_kernels.options = lambda *_, options=options: options
                flex_kernels.compiled.cache_clear()
                torch._dynamo.reset()
                result["milliseconds"] = several(partial(flex.Flex.attend, *drawn, encoding, at, Mask()), setting)


def several(run: Callable[[], object], setting: Setting) -> float:
    """The median of five, after one that compiles."""
    run()
    return statistics.median(seconds_of(run, setting, 1) for _ in range(5)) * 1000
