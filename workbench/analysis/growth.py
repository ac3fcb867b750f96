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
    pairs = sorted(
        (int(at), float(value))
        for at, value in zip(num_visual, values, strict=True)
        if at > 0 and value > 0
    )
    if not pairs:
        return None
    high, above = pairs[-1]
    before = [pair for pair in pairs if high / pair[0] >= LEAST]
    if not before:
        return None
    low, below = min(before, key=lambda pair: abs(math.log(high / pair[0] / STEP)))
    power = math.log(above / below) / math.log(high / low)
    return Growth(STEP**power, low, high)
