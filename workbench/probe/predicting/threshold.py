"""The largest member of a family of cells that fits a device: by |V|, by batch, by frames.

Two members are traced, three where something grows with the square of the size; what all others
allocate follows from theirs (``size_model``), and a card's allocator is replayed with that. The
end of the bracket that fits is traced itself. So is the other, unless the blocks of the first come
out to the byte as they are told: then those of its neighbour are taken as they are told.
"""

from collections.abc import Callable
from functools import lru_cache
from math import ceil

from workbench.collector import without_collector
from workbench.probe.predicting.family import Family
from workbench.probe.predicting.search import WIDTH
from workbench.probe.predicting.size_model import size_model

Fits = Callable[[int], bool]
LOOK_BELOW = 0.9
"""Share of a threshold from which on sizes are looked at."""
LOOK_STEP = 2 * WIDTH
"""How far apart, relative to the size."""


def find_threshold(family: Family, start: int, most: int) -> tuple[int | None, int | None]:
    """(fits, fails) with fails ≤ fits + max(1, 1 %).

    ``start`` is the largest of the first members that are traced. (None, 0) where nothing fits,
    (``most``, None) where everything up to ``most`` does.
    """
    with without_collector():
        model = size_model(family, start, most)
        if model is None:
            return _confirmed(family, *_bracketed(family.fits, start, most), most)
        fits = lru_cache(maxsize=None)(model.fits)
        # Allocated bytes, which are quickly summed, bound it from above.
        _, tight = _bracketed(model.may_fit, start, most)
        if tight is None and fits(most):
            return _confirmed(family, most, None, most)
        low, high = _lowest_failure(fits, tight or most)
        trace = model.trace_beside(high, low, family.trace(low)) if low else None
        if trace is not None:
            family.add(high, trace)
        return _confirmed(family, low, high, most)


def _bracketed(fits: Fits, start: int, most: int) -> tuple[int, int | None]:
    """The bracket of 1 % between what fits and what does not; None where everything does."""
    low, high = 0, min(start, most)
    while fits(high):
        if high == most:
            return most, None
        low, high = high, min(2 * high, most)
    return _bisected(fits, low, high)


def _bisected(fits: Fits, low: int, high: int) -> tuple[int, int]:
    """The bracket of 1 % between what is taken to fit and what does not."""
    while high - low > max(1, int(WIDTH * low)):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low, high


def _lowest_failure(fits: Fits, bound: int) -> tuple[int, int]:
    """The lowest bracket of 1 % below ``bound``, which does not fit.

    An allocator may refuse a size and serve a somewhat larger one, whose pieces happen to fit: up
    to the threshold everything should run. So sizes of some way below are looked at.
    """
    high, start = bound, int(LOOK_BELOW * bound)
    while start and not fits(start):  # Much lower, as where free memory is in pieces.
        high, start = start, int(LOOK_BELOW * start)
    low, failed = _walked(fits, start, high) if start else (0, None)
    low, high = _bisected(fits, low, failed or high)
    below = int(LOOK_BELOW * low)
    if not below or start <= (1 + LOOK_STEP) * below:  # That far down it was looked at.
        return low, high
    if not fits(below):
        return _lowest_failure(fits, below)
    fit, failed = _walked(fits, below, start)
    return (low, high) if failed is None else (fit, failed)


def _walked(fits: Fits, fit: int, end: int) -> tuple[int, int | None]:
    """From a size that fits up to ``end`` in steps: the last that fits, and the first that does
    not, in a bracket of 1 %, if one of those looked at does not.
    """
    while (size := fit + max(1, int(LOOK_STEP * fit))) < end:
        if not fits(size):
            return _bisected(fits, fit, size)
        fit = size
    return fit, None


def _confirmed(
    family: Family, low: int, high: int | None, most: int
) -> tuple[int | None, int | None]:
    """The bracket whose ends were traced, or told; moved where they contradict it."""
    while not family.fits(low):
        if low == 0:
            return None, 0
        low, high = min(low - 1, ceil(low / (1 + WIDTH))), low
    while high is not None and family.fits(high):
        if high == most:
            return most, None
        low, high = high, min(most, high + max(1, int(WIDTH * high)))
    return low, high
