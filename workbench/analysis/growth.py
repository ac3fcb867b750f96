"""How many times as much four times the tokens take: growth in one number, of two points."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

STEP = 4.0
"""Times the tokens: linear growth is 4 times as much, quadratic 16 times."""
LEAST = 1.5
"""Times the tokens that the two points must lie apart at least."""


class Growth(NamedTuple):
    """The growth between two |V| of a line, per four times the tokens."""

    factor: float
    low: int
    high: int


def growth(
    num_visual: Sequence[int] | np.ndarray, values: Sequence[float] | np.ndarray
) -> Growth | None:
    """Between the largest |V| and the one nearest to a quarter of it; None without such a pair.

    Where the two are not four times apart the factor is that of a power law through both.
    """
    at, value = np.asarray(num_visual), np.asarray(values, dtype=float)
    positive = (at > 0) & (value > 0)
    order = np.lexsort((value[positive], at[positive]))
    at, value = at[positive][order], value[positive][order]
    before = np.flatnonzero(at * LEAST <= at[-1]) if len(at) else ()
    if not len(before):
        return None
    nearest = before[np.argmin(np.abs(np.log(at[-1] / at[before] / STEP)))]
    low, below, high, above = int(at[nearest]), value[nearest], int(at[-1]), value[-1]
    power = math.log(above / below) / math.log(high / low)
    return Growth(STEP**power, low, high)
