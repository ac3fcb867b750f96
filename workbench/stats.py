"""Statistics of a few timings, in plain Python: vocabulary that both halves share.

The interval of a median comes from order statistics: whatever the noise looks like, the number of
samples below the true median is binomial(n, 1/2). No assumption of normality is made.
"""

from collections.abc import Sequence
from math import comb
from statistics import median
from typing import NamedTuple


class Interval(NamedTuple):
    """A median with its confidence interval; ``low`` and ``high`` are None below 6 samples."""

    median: float
    low: float | None
    high: float | None
    num_samples: int

    @property
    def relative_half_width(self) -> float | None:
        """Half the interval over the median; None where there is no interval or the median is 0."""
        if self.low is None or self.high is None or not self.median:
            return None
        return (self.high - self.low) / 2 / abs(self.median)


def _tail(n: int, k: int) -> float:
    """P(X < k) for X binomial(n, 1/2)."""
    return sum(comb(n, i) for i in range(k)) / 2**n


def coverage_of_order_statistics(n: int, k: int) -> float:
    """How often the k-th smallest and the k-th largest of ``n`` samples enclose the median."""
    return 1.0 - 2.0 * _tail(n, k)
