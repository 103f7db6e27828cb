"""MEP: the bias is the logarithm of the mean of several kernels of the distance.

Source: Gao 2024, "MEP: Multiple Kernel Learning Enhancing Relative Positional Encoding Length
Extrapolation" (arXiv 2403.17698); code vangogh0318/MEP at 0407d35, classes ParallelSNOPE and
ParallelSNOPEKerpleLog, which seems to be the author's. Every relative bias is the logarithm of a
kernel that multiplies the attention weights before they are normalised. With x = i - j and ALiBi's
slopes s_h the kernels, by name, are

    exp         e^(-s x), ALiBi's                kerple_log  (1 + a x)^(-p), KERPLE's, learned
    exp_half    e^(-s x / 2)                     t5          e^(T5's bias), learned
    gaussian    e^(-s x^2)                       polynomial  (1 + a x)^(-p), constants for 12 heads
    tanh        1e-6 + 1 + tanh(-t x), constants for 12 heads

and the bias is the logarithm of their unweighted mean. A list inside the list of kernels is a mean
that counts as one kernel.

Deviations and choices:
    * Which kernels are averaged is not in the published configurations but in lines that are
      commented out. `kernels` defaults to the active line of the parameter-free class; the active
      line of the other class is [gaussian, exp, t5, kerple_log].
    * `numerics`: the code forms the mean and takes its logarithm, so a far key gets minus infinity
      (in float32 from distance 412 for slope 1/2). "stable", the default, adds logarithms of kernels
      and stays finite: the probabilities are the same to e^-88. "as_published" gives the infinities,
      and `distance_dtype` rounds every step, as in the author's bfloat16 runs; a wrapper that computes
      with the bias (dape) needs "stable".
    * Constants for tanh and polynomial exist for 12 heads only; other numbers are refused. The
      polynomial kernel stands in an older class that sorted the slopes of its partner; they are not
      sorted here.
    * KERPLE's and T5's kernels are those encodings as they are here, clamp and scale included. A
      kernel named twice shares its parameters.
    * One set of parameters for all layers, as released.
    * Bidirectional: every kernel takes the distance |i - j|, and T5's its two-sided buckets. The
      author has no such form.
"""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from lpe_eval.errors import SpecError
from lpe_eval.model.constants import constant
from lpe_eval.model.distance_kernels import rounded
from lpe_eval.model.encoding import Encoding, EncodingOptions, Geometry
from lpe_eval.model.encodings.alibi import Alibi
from lpe_eval.model.encodings.kerple_log import KerpleLog
from lpe_eval.model.encodings.t5 import T5
from lpe_eval.model.offsets import distances

Kernel = Literal["exp", "exp_half", "gaussian", "tanh", "kerple_log", "t5", "polynomial"]
Inner = Annotated[tuple[Kernel, ...], Field(min_length=1)]
Nested = Annotated[tuple[Kernel | Inner, ...], Field(min_length=1)]

TANH_T = (0.25737, 0.12873, 0.06437, 0.03219, 0.0163, 0.00849, 0.00457, 0.00256, 0.36406, 0.18203, 0.09103, 0.04552)
TANH_FLOOR = 1e-6
POLYNOMIAL_A = (0.01, 0.01, 0.01, 0.01, 0.0118, 0.0157, 0.0332, 0.0806, 0.2852, 0.1904, 0.3945, 0.3105)
POLYNOMIAL_P = (0.6914, 0.7656, 1.1406, 1.7812, 1.7266, 1.9688, 2.0938, 2.0312, 1.8672, 4.0938, 3.9375, 4.6875)


class Mep(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        kernels: Annotated[tuple[Kernel | Nested, ...], Field(min_length=1)] = ("exp", "exp_half", "gaussian")
        combine: Literal["log_mean"] = "log_mean"
        numerics: Literal["stable", "as_published"] = "stable"
        distance_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
        t5_buckets: PositiveInt = 32
        t5_max_distance: PositiveInt = 128

    title: ClassVar[str] = "MEP"
    paper: ClassVar[str] = "Gao 2024, arXiv 2403.17698"
    bibtex: ClassVar[str] = """
        @misc{gao2024mep,
          title = {{MEP: Multiple Kernel Learning Enhancing Relative Positional Encoding Length Extrapolation}},
          author = {Gao, Weiguo},
          year = {2024},
          eprint = {2403.17698},
          archivePrefix = {arXiv},
        }
    """
    bibtex_with: ClassVar[Mapping[str, str]] = {
        "exp": Alibi.bibtex,
        "exp_half": Alibi.bibtex,
        "kerple_log": KerpleLog.bibtex,
        "t5": T5.bibtex,
    }

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: Mep.Options = options
        wanted = set(_names(options.kernels))
        constant = sorted(wanted & {"tanh", "polynomial"})
        if constant and geometry.heads != len(TANH_T):
            raise SpecError(f"mep has constants for the kernel {constant[0]!r} for 12 heads only, not {geometry.heads}")
        dtype = options.distance_dtype
        self.alibi = Alibi(geometry, Alibi.Options(distance_dtype=dtype))
        self.learned = nn.ModuleDict()
        if "kerple_log" in wanted:
            self.learned["kerple_log"] = KerpleLog(geometry, KerpleLog.Options(distance_dtype=dtype))
        if "t5" in wanted:
            t5 = T5.Options(buckets=options.t5_buckets, max_distance=options.t5_max_distance)
            self.learned["t5"] = T5(geometry, t5)

    def bias_by_offset(self, offset: Int[Tensor, " n"]) -> Float[Tensor, "h n"]:
        if self.options.numerics == "stable":
            return self._log_mean(self.options.kernels, offset)
        return torch.log(self._mean(self.options.kernels, offset)).to(self.alibi.slopes.dtype)

    def _log_mean(self, kernel: Kernel | tuple, offset: Int[Tensor, " n"]) -> Float[Tensor, "h n"]:
        if isinstance(kernel, str):
            return self._log_kernel(kernel, offset)
        logs = torch.stack([self._log_mean(each, offset) for each in kernel])
        return torch.logsumexp(logs, 0) - math.log(len(kernel))

    def _mean(self, kernel: Kernel | tuple, offset: Int[Tensor, " n"]) -> Float[Tensor, "h n"]:
        dtype = self.options.distance_dtype
        if kernel == "tanh":
            slopes, distance = self._constants(TANH_T, offset), distances(offset, self.geometry.causal)
            return TANH_FLOOR + 1 + torch.tanh(-rounded(slopes, dtype) * rounded(distance, dtype))
        if isinstance(kernel, str):
            return torch.exp(rounded(self._log_kernel(kernel, offset), dtype))
        return sum((self._mean(each, offset) for each in kernel), torch.zeros(())) / len(kernel)

    def _log_kernel(self, kernel: Kernel, offset: Int[Tensor, " n"]) -> Float[Tensor, "h n"]:
        if kernel in ("kerple_log", "t5"):
            learned = self.learned[kernel]
            assert isinstance(learned, KerpleLog | T5)
            return learned.bias_by_offset(offset)
        dtype, exp = self.options.distance_dtype, self.alibi.bias_by_offset(offset)
        assert exp is not None
        distance = rounded(distances(offset, self.geometry.causal), dtype)
        match kernel:
            case "exp":
                return exp
            case "exp_half":
                return exp / 2
            case "gaussian":
                return (-rounded(self.alibi.slopes, dtype)[:, None] * distance**2).to(exp.dtype)
            case "tanh":
                # 1 + tanh(-y) is 2 sigmoid(-2y), whose logarithm does not cancel.
                bare = math.log(2) + nn.functional.logsigmoid(-2 * self._constants(TANH_T, offset) * distance)
                return torch.logaddexp(bare, torch.full_like(bare, math.log(TANH_FLOOR)))
            case "polynomial":
                a, p = self._constants(POLYNOMIAL_A, offset), self._constants(POLYNOMIAL_P, offset)
                return -p * torch.log(1 + a * distance)

    def _constants(self, values: tuple[float, ...], offset: Int[Tensor, " n"]) -> Float[Tensor, "h 1"]:
        return constant(values, self.alibi.slopes.dtype, offset.device)[:, None]


def _names(kernels: tuple) -> list[str]:
    found = [[kernel] if isinstance(kernel, str) else _names(kernel) for kernel in kernels]
    return [name for names in found for name in names]
