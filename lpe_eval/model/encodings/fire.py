"""FIRE: a small network of the distance relative to the query's position.

Source: Li, You, Guruganesh, Ainslie, Ontanon, Zaheer, Sanghai, Yang, Kumar and Bhojanapalli 2024,
"Functional Interpolation for Relative Positions Improves Long Context Transformers" (arXiv
2310.04418). The authors' code is not public; the listing is that of DAPE.py in chuanyang-Zheng/DAPE
at bde344a, class FIRE, and of mcleish7/arithmetic. With psi(x) = ln(1 + |c x|)

    bias(i, j) = f(psi(i - j) / (psi(max(L, i)) + eps)),    f = Linear(1, hidden) - ReLU - Linear(hidden, H),

where i counts from 0 and the threshold is L = |multiplier * init|, both c and the multiplier learned.

Deviations and choices:
    * `threshold`: the initial L is the train length. The listing says 512 and DAPE's training code
      half of its configured length; write `half_train_length`, or a number.
    * One hidden layer, as in every listing; the paper's text speaks of two.
    * `activation: leaky_relu` is what the DAPE code puts into a FIRE that DAPE wraps.
    * Distances are float32 and only the ratio is cast to the type of the weights, as in the code.
    * While every query of a block is below the threshold the bias depends on i - j alone, and f is
      computed once for each distance. The numbers are the same.
    * f is piecewise linear in one number. On the CPU, without gradients, in a causal model, a block of rows above
      the threshold is put together from its pieces (`_in_segments`): equal up to rounding, and the hidden
      layer is never computed for a pair.
    * Bidirectional: the authors have no such form. `future`: "symmetric" gives future keys the
      distance |i - j|, as the listing of mcleish7/arithmetic; "zero" gives them distance 0, as the
      DAPE code. `normaliser`: "farthest" is ours, max(L, distance to the farthest key on either
      side), which keeps the ratio at most one; "query" is max(L, i) as in the causal form. In a
      causal model both are the same and the future is never looked at.
"""

from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from lpe_eval.model.encoding import Encoding, EncodingOptions, Geometry, LinearPieces, RatioBias, reset_linear
from lpe_eval.model.offsets import consecutive, distances, spread_offsets, worth_looking


class _Pieces(NamedTuple):
    """f(r) = constant + slope * r + sum over the knots of jump * relu(r - knot), in float64."""

    constant: Float[Tensor, " h"]
    slope: Float[Tensor, " h"]
    knot: Float[Tensor, " n"]
    jump: Float[Tensor, "h n"]


class Fire(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        hidden: PositiveInt = 32
        activation: Literal["relu", "leaky_relu"] = "relu"
        threshold: Literal["train_length", "half_train_length"] | PositiveFloat = "train_length"
        initial_c: float = 0.1
        initial_multiplier: float = 1.0
        eps: NonNegativeFloat = 1e-6
        future: Literal["symmetric", "zero"] = "symmetric"
        normaliser: Literal["farthest", "query"] = "farthest"

    title: ClassVar[str] = "FIRE"
    paper: ClassVar[str] = "Li et al. 2024, arXiv 2310.04418"
    bibtex: ClassVar[str] = """
        @misc{li2023fire,
          title = {{Functional Interpolation for Relative Positions Improves Long Context Transformers}},
          author = {Li, Shanda and You, Chong and Guruganesh, Guru and Ainslie, Joshua and Ontanon, Santiago
            and Zaheer, Manzil and Sanghai, Sumit and Yang, Yiming and Kumar, Sanjiv and
            Bhojanapalli, Srinadh},
          year = {2023},
          eprint = {2310.04418},
          archivePrefix = {arXiv},
        }
    """
    per_layer: ClassVar[bool] = True

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: Fire.Options = options
        match options.threshold:
            case "train_length":
                self.initial_threshold = float(geometry.train_length)
            case "half_train_length":
                self.initial_threshold = float(geometry.train_length // 2)
            case number:
                self.initial_threshold = float(number)
        self.c = nn.Parameter(torch.tensor(options.initial_c))
        self.multiplier = nn.Parameter(torch.tensor(options.initial_multiplier))
        self.first = nn.Linear(1, options.hidden)
        self.second = nn.Linear(options.hidden, geometry.heads)

    def initialise(self, generator: torch.Generator) -> None:
        reset_linear(self.first, generator)
        reset_linear(self.second, generator)
        with torch.no_grad():
            self.c.fill_(self.options.initial_c)
            self.multiplier.fill_(self.options.initial_multiplier)

    def bias(self, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> Float[Tensor, "h q k"]:
        reach = self._reach(q_at, k_at)
        threshold = (self.multiplier * self.initial_threshold).abs()
        if worth_looking(q_at, k_at) and int(reach.max()) < float(threshold.detach()):
            return spread_offsets(lambda offset: self._network(self._log(offset), threshold), q_at, k_at)
        if self._may_cut(q_at) and consecutive(k_at):
            if consecutive(q_at.flip(0)):
                return self._in_segments(q_at, k_at, threshold)
            if consecutive(q_at):
                return self._in_segments(q_at.flip(0), k_at, threshold).flip(1)
        offset = q_at[:, None] - k_at[None, :]
        normaliser = torch.maximum(threshold, reach.to(threshold.dtype))[:, None].expand(offset.shape)
        return self._network(self._log(offset).flatten(), normaliser).unflatten(-1, offset.shape)

    def ratio_bias(self) -> RatioBias | None:
        return RatioBias(self._log, self._denominator, self._all_pieces)

    def _denominator(self, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> Float[Tensor, " q"]:
        threshold = (self.multiplier * self.initial_threshold).abs()
        reach = torch.maximum(threshold, self._reach(q_at, k_at).to(threshold.dtype))
        return torch.log1p((self.c * reach).abs()) + self.options.eps

    def _reach(self, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> Int[Tensor, " q"]:
        if not self.geometry.causal and self.options.normaliser == "farthest":
            return torch.maximum(q_at - k_at.min(), k_at.max() - q_at)
        return q_at

    def _may_cut(self, at: Int[Tensor, " t"]) -> bool:
        return (
            self.geometry.causal
            and not torch.is_grad_enabled()
            and at.device.type == "cpu"
            and self.first.weight.dtype == torch.float32
        )

    def _in_segments(
        self, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"], threshold: Float[Tensor, ""]
    ) -> Float[Tensor, "h q k"]:
        """The bias of rows that run backwards, put together from the linear pieces of f.

        Number the lines of equal distance by m = row + column. Between two knots of f the bias is
        constant + slope * psi(m) / psi(row): two tables over m, each read as a strided view. The
        row moves a knot, but within a block only by a few lines: the tables leave a knot out until
        all rows have passed it, and the lines in between, a slanted strip of the block, get what
        it adds. With some room before each row, the strip too is a strided view.
        """
        rows, columns, heads = len(q_at), len(k_at), self.geometry.heads
        lines = rows + columns - 1
        line = torch.arange(lines, device=q_at.device)
        psi = self._log(q_at[0] - k_at[0] - line)
        reach = torch.maximum(threshold, q_at.to(threshold.dtype))
        inverse = 1 / (torch.log1p((self.c * reach).abs()) + self.options.eps)[:, None]
        pieces = self._pieces(float(psi[0] * inverse[-1]))
        # psi falls along m and `inverse` rises along the rows. A knot is passed on the first so many lines.
        falling = -psi.double()
        by_all = torch.searchsorted(falling, -pieces.knot / inverse[0].double()).tolist()
        by_any = torch.searchsorted(falling, -pieces.knot / inverse[-1].double()).tolist()
        constant, slope = self._tables(pieces, by_all, lines)
        wide = torch.empty(heads, rows, rows + columns, device=q_at.device)
        block = wide[:, :, rows:]
        constant, slope = (table.float().unfold(-1, columns, 1) for table in (constant, slope * psi))
        torch.addcmul(constant, slope, inverse, out=block)
        for number, (start, stop) in enumerate(zip(by_all, by_any, strict=True)):
            if start < stop:
                shape, steps = (heads, rows, stop - start), (wide.stride(0), wide.stride(1) - 1, 1)
                passed = torch.relu(psi[start:stop] * inverse - pieces.knot[number].float())
                strip = wide.as_strided(shape, steps, rows + start)
                strip.addcmul_(pieces.jump[:, number, None, None].float(), passed)
        return block

    def _tables(
        self, pieces: _Pieces, passed: list[int], lines: int
    ) -> tuple[Float[Tensor, "h m"], Float[Tensor, "h m"]]:
        """Constant and slope of f on each line, where a knot counts on its first `passed` lines."""
        # Knots fall, so `passed` rises: on the lines between the ends of two knots the later ones count.
        ends = torch.tensor([*passed, lines]).diff(prepend=torch.zeros(1, dtype=torch.long))
        ends = ends.to(pieces.knot.device)
        tables = []
        for start, jump in ((pieces.constant, -pieces.jump * pieces.knot), (pieces.slope, pieces.jump)):
            later = F.pad(jump, (0, 1)).flip(-1).cumsum(-1).flip(-1)
            tables.append((start[:, None] + later).repeat_interleave(ends, dim=1))
        return tables[0], tables[1]

    def _pieces(self, highest: float) -> _Pieces:
        """f on [0, highest]; knots outside are part of the line or out of reach. The highest knot comes first."""
        line_constant, line_slope, knot, jump = self._units()
        below, inside = knot <= 0, (knot > 0) & (knot < highest)
        line_constant = line_constant - (jump * knot)[:, below].sum(-1)
        line_slope = line_slope + jump[:, below].sum(-1)
        order = knot[inside].argsort(descending=True)
        return _Pieces(line_constant, line_slope, knot[inside][order], jump[:, inside][:, order])

    def _all_pieces(self) -> LinearPieces:
        """f between all of its knots, wherever they are, so that no number is fetched from the device."""
        line_constant, line_slope, knot, jump = self._units()
        order = knot.argsort()
        knot, jump = knot[order], jump[:, order]
        # A unit without a knot jumps by nothing, and nothing times infinity must stay nothing.
        step = torch.where(knot.isinf(), 0.0, jump * knot)
        constant = line_constant[:, None] - F.pad(step.cumsum(-1), (1, 0))
        slope = line_slope[:, None] + F.pad(jump.cumsum(-1), (1, 0))
        return LinearPieces(knot.float(), constant.float(), slope.float())

    def _units(self) -> _Pieces:
        """f on the whole line, from the knot of each unit in the order of the units."""
        weight, bias = self.first.weight[:, 0].double(), self.first.bias.double()
        out, constant = self.second.weight.double(), self.second.bias.double()
        leak = 0.01 if self.options.activation == "leaky_relu" else 0.0
        # A unit is leak * (w r + b) + (1 - leak) * relu(w r + b), and for w < 0 relu(x) is x + relu(-x).
        line = leak + (1 - leak) * ((weight < 0) | ((weight == 0) & (bias > 0)))
        knot = torch.where(weight == 0, torch.inf, -bias / weight)
        jump = (1 - leak) * out * weight.abs()
        return _Pieces(constant + out @ (line * bias), out @ (line * weight), knot, jump)

    def _log(self, offset: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        distance = distances(offset, self.geometry.causal or self.options.future == "zero")
        return torch.log1p((self.c * distance).abs())

    def _network(self, numerator: Float[Tensor, " n"], normaliser: Float[Tensor, "..."]) -> Float[Tensor, "h n"]:
        denominator = torch.log1p((self.c * normaliser).abs()) + self.options.eps
        ratio = numerator / denominator.flatten()
        ratio = ratio.to(self.first.weight.dtype)
        # Heads-first from the start: the hidden layer is a matrix hidden x pairs, reused by the activation.
        hidden = torch.addmm(self.first.bias[:, None], self.first.weight, ratio[None])
        slope = 0.01 if self.options.activation == "leaky_relu" else 0.0
        hidden = F.leaky_relu(hidden, slope, inplace=True) if slope else F.relu(hidden, inplace=True)
        return torch.addmm(self.second.bias[:, None], self.second.weight, hidden)
