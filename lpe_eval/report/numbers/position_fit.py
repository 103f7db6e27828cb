"""A power law through the loss by context: loss = (alpha / c) ** beta + gamma, with c tokens of context.

Source of the form: Xiong et al. 2023 (Effective Long-Context Scaling of Foundation Models, arXiv 2309.16039), who fit
it to the validation loss at each position. Here it is fitted by weighted least squares, a size of context weighing as
much as it has targets.

For a given beta the best alpha and gamma are a line's slope and intercept, so only beta is searched for: on a grid, and
then by golden section around the best point of it. That is the least-squares solution in all three, without a first
guess and without a step that may diverge. Errors are those of the fit's own Jacobian there (Gauss and Newton), scaled
by what the fit leaves over; alpha's by way of its logarithm, on which it is nearly normal. Neighbouring sizes of
context are targets of the same documents, so the errors are those of this text, and rather too small than too large.

There is no fit, and a reason, where the curve has no such law to find: too few sizes of context, a range below
`LEAST_RANGE`, a loss that is level within its noise, one that rises, one that goes on falling like a logarithm, or one
that mostly does something else, such as falling and then breaking. Noise is told from shape by how much neighbours
differ.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

LEAST_SIZES = 6
"""Sizes of context that a fit of three numbers needs."""
LEAST_RANGE = 8.0
"""Largest over smallest context."""
LEAST_EXPLAINED = 0.5
"""Share of the spread that the law explains at least, where the rest is not noise."""
LEVEL = 10.0
"""What a fall must be above its noise (an F statistic): noise alone exceeds it once in ten thousand times."""
_SHAPED = 4.0
"""Times that residuals may exceed the differences of neighbours before they have a shape of their own."""

_LOW, _HIGH, _GRID = 0.01, 8.0, 120
_GOLDEN = (math.sqrt(5) - 1) / 2
_ROUNDS = 90
_STEEPEST = 1e12


class Parameter(NamedTuple):
    """A number and its standard error."""

    value: float
    stderr: float


class Fit(NamedTuple):
    """A fit, or why there is none.

    Attributes:
        explained: share of the weighted spread over sizes of context that the curve explains.
        why_not: empty where there is a fit.
    """

    alpha: Parameter
    beta: Parameter
    gamma: Parameter
    explained: float
    why_not: str = ""

    def __call__(self, contexts: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Nats a token at sizes of context."""
        return (self.alpha.value / contexts) ** self.beta.value + self.gamma.value


def fit_power_law(
    contexts: Float[np.ndarray, " n"], losses: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"]
) -> Fit:
    """The power law through some points.

    Args:
        contexts: sizes of context, in tokens, at least 1.
        losses: mean nats a token at each.
        weights: targets behind each.
    """
    kept = np.isfinite(losses) & (weights > 0)
    contexts, losses, weights = contexts[kept], losses[kept], weights[kept]
    if len(np.unique(contexts)) < LEAST_SIZES:
        return _none(f"there are {len(np.unique(contexts))} sizes of context, and a fit needs {LEAST_SIZES}")
    low, high = float(contexts.min()), float(contexts.max())
    if high < LEAST_RANGE * low:
        return _none(f"contexts reach from {low:.0f} to {high:.0f} tokens, which is too narrow for a law")
    weights = weights / weights.sum()
    # Contexts relative to their middle keep the powers near 1, whatever beta is.
    middle = math.exp(float((weights * np.log(contexts)).sum()))
    scaled = contexts / middle
    spread = float((weights * (losses - (weights * losses).sum()) ** 2).sum())
    if spread <= (1e-9 * float(np.abs(losses).max())) ** 2:
        return _none("the loss is the same at every size of context")
    grid = np.geomspace(_LOW, _HIGH, _GRID)
    best = int(np.argmin([_left(beta, scaled, losses, weights) for beta in grid]))
    beta = _narrowed(grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)], scaled, losses, weights)
    slope, gamma = _line(beta, scaled, losses, weights)
    residual = losses - slope * scaled**-beta - gamma
    over = float((weights * residual**2).sum())
    explained = max(0.0, 1 - over / spread)
    order = np.argsort(scaled)
    rough = float((np.diff((np.sqrt(weights) * residual)[order]) ** 2).sum()) / 2
    if explained < LEAST_EXPLAINED and over > _SHAPED * rough:
        return _none(f"it is no power law, which explains {100 * explained:.0f} % of what varies", explained)
    if (spread - over) / 2 < LEVEL * over / (len(scaled) - 3):
        return _none("the loss is level: with context it varies no more than noise does", explained)
    if slope <= 0:
        return _none("the loss rises with context", explained)
    if best == 0:
        return _none("the loss falls like a logarithm of the context; no level that it falls to is in sight", explained)
    if best == _GRID - 1:
        return _none("the loss falls within the first few tokens of context and is level from there", explained)
    return _with_errors(scaled, losses, weights, (slope, beta, gamma), middle, explained)


def _with_errors(
    scaled: Float[np.ndarray, " n"],
    losses: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    found: tuple[float, float, float],
    middle: float,
    explained: float,
) -> Fit:
    slope, beta, gamma = found
    power = scaled**-beta
    try:
        alpha = middle * slope ** (1 / beta)
    except OverflowError:
        alpha = math.inf
    # By the logarithm of alpha, beta and gamma.
    of_beta = slope * power * (math.log(slope) / beta - np.log(scaled))
    rates = np.stack([slope * power * beta, of_beta, np.ones_like(scaled)], axis=1)
    residual = losses - slope * power - gamma
    noise = float((weights * residual**2).sum()) / (1 - 3 / len(scaled))
    information = rates.T @ (weights[:, None] * rates) * len(scaled)
    if np.linalg.cond(information) > _STEEPEST or not math.isfinite(alpha):
        return _none("the three numbers of the law cannot be told apart on this range of contexts", explained)
    log_alpha, beta_error, gamma_error = np.sqrt(noise * np.diag(np.linalg.inv(information)))
    if beta_error > beta:
        return _none("how fast the loss falls cannot be told from noise", explained)
    return Fit(
        Parameter(alpha, alpha * float(log_alpha)),
        Parameter(float(beta), float(beta_error)),
        Parameter(gamma, float(gamma_error)),
        explained,
    )


def _line(
    beta: float, scaled: Float[np.ndarray, " n"], losses: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"]
) -> tuple[float, float]:
    """Slope and intercept of the losses over c ** -beta; weights add up to 1."""
    power = scaled**-beta
    at, level = float((weights * power).sum()), float((weights * losses).sum())
    slope = float((weights * (power - at) * losses).sum() / (weights * (power - at) ** 2).sum())
    return slope, level - slope * at


def _left(
    beta: float, scaled: Float[np.ndarray, " n"], losses: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"]
) -> float:
    """Weighted squares that the best curve of this beta leaves over."""
    slope, gamma = _line(beta, scaled, losses, weights)
    return float((weights * (losses - slope * scaled**-beta - gamma) ** 2).sum())


def _narrowed(
    low: float,
    high: float,
    scaled: Float[np.ndarray, " n"],
    losses: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
) -> float:
    """The beta between two that leaves least over, by golden section."""
    for _ in range(_ROUNDS):
        first, second = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if _left(first, scaled, losses, weights) < _left(second, scaled, losses, weights):
            high = second
        else:
            low = first
    return float(low + high) / 2


def _none(why: str, explained: float = math.nan) -> Fit:
    nothing = Parameter(math.nan, math.nan)
    return Fit(nothing, nothing, nothing, explained, why)
