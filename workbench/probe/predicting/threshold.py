"""The largest member of a family of cells that fits a device: by |V|, by batch, by frames.

A few members are traced; the sizes of all that the others allocate follow from theirs, for each is
a polynomial of at most second degree, and a card's allocator is replayed with them. Both ends of
the bracket are traced and replayed themselves before they are told.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil, prod
from typing import Any

import numpy as np

from workbench.probe.counting.allocator import Allocator
from workbench.probe.predicting.footprint import Footprint, setting_of, traced_footprint
from workbench.probe.predicting.replay import Program, replay
from workbench.probe.predicting.search import WIDTH
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.fields import Layers
from workbench.vocabulary.pictures import Pictures

Fits = Callable[[int], bool]
Floats = np.ndarray[Any, np.dtype[np.float64]]
ITERATIONS = 2
"""Iterations of a member that is only looked at."""
LOOK_BELOW = 0.9
"""Share of a threshold from which on sizes are looked at."""
LOOK_STEP = 2 * WIDTH
"""How far apart, relative to the size."""
FEW_CHUNKS = 16
"""Chunks of the largest first member, at least: a quarter of it still has four, and fewer are made
in ways of their own."""


@dataclass
class Family:
    """Cells that differ in one number, on one device; each is traced once at most."""

    cell: Callable[[int], Cell]
    allocator: Allocator
    capacity: int
    emulate: Layers | None = None
    empty: bool = False
    """Whether there is no cell for 0, which then needs nothing."""
    pictures: Callable[[int], Pictures | None] = lambda _: None
    """What each shows at scope lvlm, where that is of a size of its own."""
    _known: dict[int, Footprint] = field(default_factory=dict)

    def footprint(self, number: int) -> Footprint:
        """The memory of one member, traced; raises as ``predict`` does."""
        if number not in self._known:
            self._known[number] = traced_footprint(
                self.cell(number),
                self.allocator,
                self.capacity,
                self.emulate,
                self.pictures(number),
            )
        return self._known[number]

    def fits(self, number: int) -> bool:
        """Whether one member fits, by a trace of its own."""
        return (number == 0 and self.empty) or self.footprint(number).fits

    def flags(self, fails: int) -> list[str]:
        """What an answer has to say beside its bracket."""
        found = self.footprint(fails)
        flags = [] if found.plan is None else [found.plan.flag]
        if found.peak.total <= self.capacity:
            flags.append(f"fragmented: |V| = {self.cell(fails).num_visual:,} {found.why_not()}")
        return flags


def find_threshold(family: Family, start: int, most: int) -> tuple[int | None, int | None]:
    """(fits, fails) with fails ≤ fits + max(1, 1 %).

    ``start`` is the largest of the first members that are traced. (None, 0) where nothing fits,
    (``most``, None) where everything up to ``most`` does.
    """
    sizes = _polynomials(family, start, most)
    if sizes is None:
        return _confirmed(family, *_bracketed(family.fits, start, most), most)
    # Allocated bytes, which are quickly summed, bound it from above.
    _, tight = _bracketed(sizes.may_fit, start, most)
    if tight is None and sizes.fits(most):
        return _confirmed(family, most, None, most)
    low, high = _lowest_failure(sizes.fits, tight or most)
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
    start = int(LOOK_BELOW * bound)
    if start >= 1 and fits(start):
        low, failed = _walked(fits, start, bound)
        low, high = _bisected(fits, low, failed or bound)
        looked = start
    else:  # Much lower, as where free memory is in pieces.
        low, high = _bisected(fits, 0, start or bound)
        looked = low
    fit = int(LOOK_BELOW * low)
    if fit < 1:
        return low, high
    if not fits(fit):
        return _lowest_failure(fits, fit)
    below, failed = _walked(fits, fit, looked)
    return (low, high) if failed is None else (below, failed)


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
    """The bracket whose ends were traced themselves; moved where they contradict it."""
    while not family.fits(low):
        if low == 0:
            return None, 0
        low, high = min(low - 1, ceil(low / (1 + WIDTH))), low
    while high is not None and family.fits(high):
        if high == most:
            return most, None
        low, high = high, min(most, high + max(1, int(WIDTH * high)))
    return low, high


@dataclass(frozen=True)
class _Polynomials:
    """The requests of every member, from those of three that differ in nothing but sizes."""

    numbers: tuple[int, ...]
    program: Program
    sizes: Floats
    """Bytes by member and block."""
    setting: str
    granule: int
    capacity: int

    def may_fit(self, number: int) -> bool:
        """Whether that member's blocks alone leave room."""
        return self.program.allocated_peak(self._sizes(number)) <= self.capacity

    def fits(self, number: int) -> bool:
        """Whether the allocator finds memory for every request of that member."""
        found = self._sizes(number)
        program = replace(self.program, sizes=found.astype(np.int64).tolist())
        return replay(program, self.setting, self.capacity, ITERATIONS).fits

    def _sizes(self, number: int) -> Floats:
        weights = [
            prod((number - other) / (own - other) for other in self.numbers if other != own)
            for own in self.numbers
        ]
        found = np.rint(np.asarray(weights) @ self.sizes).clip(0, 2.0**62)
        return np.ceil(found / self.granule) * self.granule


def _polynomials(family: Family, start: int, most: int) -> _Polynomials | None:
    """From members at ``start`` and below; further ones where those allocate in other ways.

    None where no three are found that ask for the same blocks in the same order.
    """
    chunk = family.cell(start).chunk or 0
    first = start if start >= FEW_CHUNKS * chunk else 2 * start
    for far in (first, 2 * first, 4 * first):
        numbers = (far // 4, far // 2, far)
        if far > most or numbers[0] == 0:
            return None
        programs = [family.footprint(number).program for number in numbers]
        if all(program.is_like(programs[-1]) for program in programs[:-1]):
            sizes = np.array([program.sizes for program in programs], dtype=np.float64)
            setting = setting_of(family.cell(far), family.allocator)
            granule = family.allocator.granule
            return _Polynomials(numbers, programs[-1], sizes, setting, granule, family.capacity)
    return None
