"""The curve of a cost over |V|: a + b·|V| + c·|V|², weighted by 1/y², and how sure each term is.

Weighting by 1/y² makes every point count by its relative error, as timings and bytes over three
decades need; one slope on log-log axes would call a quadratic on top of a constant linear.
Intervals are those of linear regression: the scatter about the curve estimates the noise, and
Student's t with n - 3 degrees of freedom sets the width, so that few points give wide intervals.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc, stdtrit

from workbench.vocabulary.units import plural

LEVEL = 0.95
SIGNIFICANCE = 0.01
"""Of an F-test that adds a term: of a hundred straight lines about one is called curved."""
EXACT = 1e-9
"""Relative scatter below which points lie on the curve, as counts do; rounding leaves 1e-15."""
MATERIAL = 0.1
"""Share of the value at the largest |V| above which a term that is not excluded is mentioned."""
MISFIT = 0.2
"""Relative scatter of the points about a shape's own curve beyond which that shape tells nothing
of them, whatever the tests say: five points about a curve that nothing fits refute little."""
SPREAD = 1.5
"""Largest over smallest value beyond which noisy points are not called constant."""
MIN_POINTS = 5
"""Noisy points that a choice between shapes needs: two more than the largest has terms."""

SHAPES = ("constant", "linear", "quadratic")


@dataclass(frozen=True)
class Fit:
    """A fitted curve. Terms are (a, b, c) in the metric's unit per token to that power.

    A term that the number of distinct |V| cannot determine is None, and so is its interval; with
    no more points than terms every interval is None.
    """

    num_points: int
    terms: tuple[float | None, float | None, float | None]
    intervals: tuple[tuple[float, float] | None, ...]
    scatter: float | None
    """Relative standard deviation of the points about the curve."""
    shape: str | None
    """constant, linear or quadratic; None where the points are too few to tell."""
    note: str
    """What the points leave open: a missing interval or shape, a term that they do not exclude."""
    covariance: np.ndarray | None = None
    """Covariance of the determined terms."""
    quantile: float = float("nan")

    def values(self, num_visual: Sequence[float] | np.ndarray) -> np.ndarray:
        """The curve at each |V|."""
        powers = _powers(num_visual, self._size)
        return powers @ np.array(self.terms[: self._size], dtype=float)

    def band(self, num_visual: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The curve's 95 % confidence band, lower and upper; NaN where there is no interval."""
        middle = self.values(num_visual)
        if self.covariance is None:
            return np.full_like(middle, np.nan), np.full_like(middle, np.nan)
        powers = _powers(num_visual, self._size)
        variance = np.einsum("ij,jk,ik->i", powers, self.covariance, powers)
        half = self.quantile * np.sqrt(np.maximum(variance, 0.0))
        return middle - half, middle + half

    @property
    def _size(self) -> int:
        return sum(term is not None for term in self.terms)


def fit_curve(
    num_visual: Sequence[int] | np.ndarray, values: Sequence[int | float] | np.ndarray
) -> Fit:
    """Fit the curve through (|V|, value) points; raises ValueError for none, or unequal lengths.

    Integers of any size are taken; values of zero weigh as much as the smallest other value.
    """
    x, y = np.asarray(num_visual, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if not len(x) or len(x) != len(y):
        raise ValueError(f"a curve needs points: got {len(x)} |V| and {len(y)} values")
    weight = _weights(y)
    size = min(3, len(np.unique(x)))
    fits = [_least_squares(x, y, weight, terms) for terms in range(1, size + 1)]
    shape, why = _shape(len(x), fits)
    spread = float((1 / weight).max() / (1 / weight).min())
    if shape == "constant" and spread > SPREAD:
        shape, why = None, f"{len(x)} points that differ {spread:,.1f}-fold: not constant"
    best = fits[-1]
    freedom = len(x) - size
    covariance, quantile, scatter = None, float("nan"), None
    note = why
    if freedom > 0:
        scatter = float(np.sqrt(best.squares / freedom))
        covariance = best.inverse * scatter**2
        quantile = float(stdtrit(freedom, (1 + LEVEL) / 2))
    else:
        note = f"{plural(len(x), 'point')} for {plural(size, 'term')}: no interval"
        note += f"; {why}" if why else ""
    intervals = _padded(_intervals(best.terms, covariance, quantile))
    if shape == "linear" and intervals[2] is not None:
        share = intervals[2][1] * x.max() ** 2 / np.abs(y[x.argmax()])
        if share > MATERIAL:
            note = f"a quadratic term of up to {share:.0%} at |V| = {x.max():,.0f} is not excluded"
    return Fit(
        num_points=len(x),
        terms=tuple(_padded([float(term) for term in best.terms])),
        intervals=tuple(intervals),
        scatter=scatter,
        shape=shape,
        note=note,
        covariance=covariance,
        quantile=quantile,
    )


def _weights(y: np.ndarray) -> np.ndarray:
    size = np.abs(y)
    smallest = size[size > 0].min(initial=np.inf)
    return 1.0 / np.where(size > 0, size, smallest if np.isfinite(smallest) else 1.0)


def _powers(num_visual: Sequence[float] | np.ndarray, size: int) -> np.ndarray:
    return np.vander(np.asarray(num_visual, dtype=float), size, increasing=True)


@dataclass(frozen=True)
class _Solution:
    terms: np.ndarray
    squares: float
    """Sum of the squared relative residuals."""
    inverse: np.ndarray
    """(AᵀA)⁻¹ of the weighted design matrix A."""


def _least_squares(x: np.ndarray, y: np.ndarray, weight: np.ndarray, size: int) -> _Solution:
    design = _powers(x, size) * weight[:, None]
    # |V|² next to 1 spans twelve decades: columns of equal length keep the solution exact.
    length = np.linalg.norm(design, axis=0)
    q, r = np.linalg.qr(design / length)
    target = y * weight
    terms = np.linalg.solve(r, q.T @ target) / length
    residual = target - design @ terms
    inner = np.linalg.inv(r)
    return _Solution(
        terms, float(residual @ residual), (inner @ inner.T) / np.outer(length, length)
    )


def _shape(num_points: int, fits: list[_Solution]) -> tuple[str | None, str]:
    """The smallest curve that the points carry, and why if there is none.

    A shape is refuted where an F-test says that terms which it does without are there: the next
    one, or all. A further term has to be positive: a cost does not fall as |V| grows, so a curve
    that bends down is not a sign of a quadratic term. The shape that is left is claimed only where
    its curve runs by the points.
    """
    for solution, shape in zip(fits, SHAPES, strict=False):
        freedom = num_points - len(solution.terms)
        if freedom > 0 and solution.squares <= num_points * EXACT**2:
            return shape, ""
    if num_points < MIN_POINTS or len(fits) < len(SHAPES):
        return None, (
            f"{plural(num_points, 'point')}: too few to tell constant, linear and quadratic apart"
        )
    constant, linear, quadratic = fits
    bends = quadratic.terms[-1] > 0
    if bends and _refuted(num_points, linear, quadratic):
        best = 2
    elif (linear.terms[-1] > 0 and _refuted(num_points, constant, linear)) or (
        bends and _refuted(num_points, constant, quadratic)
    ):
        best = 1
    else:
        best = 0
    off = float(np.sqrt(fits[best].squares / (num_points - best - 1)))
    if off > MISFIT:
        grows = "" if best == 0 else ": they grow, but how they do not tell"
        return None, f"{num_points} points, {off:.0%} about a {SHAPES[best]} curve{grows}"
    return SHAPES[best], ""


def _refuted(num_points: int, smaller: _Solution, larger: _Solution) -> bool:
    """Whether an F-test takes the terms that the larger curve has and the smaller has not."""
    more, freedom = len(larger.terms) - len(smaller.terms), num_points - len(larger.terms)
    ratio = (smaller.squares - larger.squares) / more / (larger.squares / freedom)
    return bool(fdtrc(more, freedom, max(ratio, 0.0)) < SIGNIFICANCE)


def _intervals(
    terms: np.ndarray, covariance: np.ndarray | None, quantile: float
) -> list[tuple[float, float] | None]:
    if covariance is None:
        return [None] * len(terms)
    half = quantile * np.sqrt(np.diag(covariance))
    return [(float(t - h), float(t + h)) for t, h in zip(terms, half, strict=True)]


def _padded(items: list) -> list:
    return items + [None] * (3 - len(items))
