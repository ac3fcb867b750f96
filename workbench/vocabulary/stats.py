"""Statistics of a few timings, in plain Python: vocabulary that both halves share.

The interval of a median comes from order statistics: whatever the noise looks like, the number of
samples below the true median is binomial(n, 1/2), so nothing is assumed to be normal. Between two
neighbouring order statistics it is interpolated (Hettmansperger and Sheather, Statistics &
Probability Letters 4, 1986), which brings the coverage close to the level asked for at every n.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import exp, hypot, isfinite, log
from statistics import median
from typing import NamedTuple

LEVEL = 0.95


class MedianInterval(NamedTuple):
    """A median and its confidence interval, which fewer than 6 samples cannot give at 95 %."""

    median: float
    low: float | None
    high: float | None
    num_samples: int

    @property
    def relative_half_width(self) -> float | None:
        """Half the interval over the median; None where there is none, or the median is 0."""
        if self.low is None or self.high is None or not self.median:
            return None
        return (self.high - self.low) / 2 / abs(self.median)


def median_interval(samples: Sequence[float], level: float = LEVEL) -> MedianInterval:
    """The median of ``samples`` with its interval; raises ValueError for none, or for NaN."""
    ordered = sorted(samples)
    if not ordered or not all(map(isfinite, ordered)):
        raise ValueError(f"a median needs at least one sample, all finite; got {len(ordered)}")
    n, middle = len(ordered), median(ordered)
    k, step = _order_statistic(n, level)
    if k == 0:
        return MedianInterval(middle, None, None, n)
    # The k-th smallest (and largest), moved by ``step`` towards the next one inside.
    low = ordered[k - 1] + step * (ordered[min(k, n - 1)] - ordered[k - 1])
    high = ordered[n - k] + step * (ordered[max(n - k - 1, 0)] - ordered[n - k])
    return MedianInterval(middle, min(low, middle), max(high, middle), n)


@lru_cache(maxsize=4096)
def _order_statistic(n: int, level: float) -> tuple[int, float]:
    """The innermost order statistic that covers, from 1 (0: none does), and the step inwards."""
    below, term = 0, 1
    coverage, k = 1.0, 0
    # After i terms, below / 2^n is P(X < i) for X binomial(n, 1/2).
    for i in range(n // 2 + 1):
        below += term
        term = term * (n - i) // (i + 1)
        inner = 1.0 - 2.0 * (below / 2**n)
        if inner < level:
            break
        coverage, k = inner, i + 1
    if k == 0:
        return 0, 0.0
    share = (coverage - level) / (coverage - inner) if inner < level else 0.0
    return k, (n - k) * share / (k + (n - 2 * k) * share)


class Ratio(NamedTuple):
    """One median over another and its confidence interval, None where either median has none."""

    value: float
    low: float | None
    high: float | None


def median_ratio(over: Sequence[float], under: Sequence[float], level: float = LEVEL) -> Ratio:
    """The median of ``over`` as a multiple of that of ``under``, both positive.

    The two intervals are joined on a logarithmic scale by the method of variance estimates
    recovery (Zou and Donner, Statistics in Medicine 27, 2008), which assumes no distribution
    either.
    """
    a, b = median_interval(over, level), median_interval(under, level)
    if a.median <= 0 or b.median <= 0:
        raise ValueError(f"a ratio needs positive medians, got {a.median} and {b.median}")
    value = a.median / b.median
    if not (a.low and a.high and b.low and b.high) or min(a.low, b.low) <= 0:
        return Ratio(value, None, None)
    down = hypot(log(a.median / a.low), log(b.high / b.median))
    up = hypot(log(a.high / a.median), log(b.median / b.low))
    return Ratio(value, value * exp(-down), value * exp(up))
