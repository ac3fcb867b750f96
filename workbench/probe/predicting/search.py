"""The search for a threshold by trials: outwards from a guess, then by halves.

A failing trial is a real out-of-memory and costs its process, so their number is bounded; so is
that of all trials, because every one is a fresh process.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from workbench.vocabulary.fields import MAX_TOKENS

WIDTH = 0.01
"""Relative width of a bracket."""
MAX_FAILURES = 12
PASSING_ITERATIONS = 3
"""Iterations that the passing end must survive: what ran once may fail later, by fragmentation."""
STEP = 0.01
"""How far from the guess the second trial is, as a share of it."""
GROWTH = 4
"""Each further step outwards is so many times the last."""

Fits = Callable[[int, int], bool]
"""(|V|, iterations) -> whether they ran; anything but success and out of memory raises."""


@dataclass
class Found:
    """A bracket and how it was come by; None where nothing fits, or nothing fails."""

    passes: int | None = None
    fails: int | None = None
    trials: list[tuple[int, int, bool]] = field(default_factory=list)
    """(|V|, iterations, whether it passed) in the order tried."""

    @property
    def failures(self) -> int:
        return sum(not passed for *_, passed in self.trials)

    def closed(self, unit: int) -> bool:
        """Whether the ends are at most 1 %, or one ``unit``, apart."""
        if self.passes is None or self.fails is None:
            return self.fails is not None and self.fails <= 0
        return self.fails - self.passes <= step_at(self.passes, unit)

    def add(self, visual: int, iterations: int, passed: bool) -> None:
        """One trial more: the bracket is the lowest failure and the highest pass below it."""
        self.trials.append((visual, iterations, passed))
        failed = [v for v, _, ran in self.trials if not ran]
        self.fails = min(failed, default=None)
        ran = [v for v, _, ran in self.trials if ran and (self.fails is None or v < self.fails)]
        self.passes = max(ran, default=None)


def step_at(visual: int, unit: int) -> int:
    """The widest bracket allowed above ``visual``: 1 %, in whole units, at least one."""
    return max(unit, int(WIDTH * visual) // unit * unit)


def search(fits: Fits, guess: int, unit: int = 1, lowest: int = 0) -> Found:
    """Bracket the largest |V| that fits, by trials of one iteration from ``guess`` on.

    |V| are multiples of ``unit`` from ``lowest`` on. Steps outwards grow fourfold until one end
    passes and the other fails; then the bracket is halved, and its passing end runs ``PROOF``
    iterations. A guess within 25 % takes at most 13 trials where no proof fails, one within 3 % at
    most 7. After ``MAX_FAILURES`` failing trials the bracket may be wider, which ``Found.closed``
    says.
    """
    bracket = Found()
    most = MAX_TOKENS // unit * unit
    proven: set[int] = set()
    at, iterations, stride = _whole(guess, unit, lowest, most), 1, STEP
    while True:
        bracket.add(at, iterations, fits(at, iterations))
        if iterations > 1:
            proven.add(at)
        if bracket.failures >= MAX_FAILURES or (
            bracket.passes is None and bracket.fails == lowest
        ):
            return bracket
        iterations = 1
        if bracket.passes is None:  # Nothing below the lowest failure was tried.
            at, stride = _below(bracket.fails or 0, stride, unit, lowest), GROWTH * stride
        elif bracket.fails is None and bracket.passes < most:
            at, stride = _above(bracket.passes, stride, unit, most), GROWTH * stride
        elif bracket.fails is not None and not bracket.closed(unit):
            at, stride = middle(bracket.passes, bracket.fails, unit), STEP
        elif bracket.passes in proven:
            return bracket
        else:
            at, iterations, stride = bracket.passes, PASSING_ITERATIONS, STEP


def middle(passes: int, fails: int, unit: int) -> int:
    """Halfway, in whole units, strictly between; by ratio where the ends are far apart."""
    half = int((passes * fails) ** 0.5) if 0 < 4 * passes < fails else (passes + fails) // 2
    return min(max(half // unit * unit, passes + unit), fails - unit)


def _whole(visual: int, unit: int, lowest: int, most: int) -> int:
    return min(max(visual // unit * unit, lowest), most)


def _above(passes: int, share: float, unit: int, most: int) -> int:
    # In whole units, not below the share: a step that is too short takes another trial.
    return _whole(passes + -(-int(passes * share) // unit) * unit, unit, passes + unit, most)


def _below(fails: int, share: float, unit: int, lowest: int) -> int:
    lower = int(fails * (1 - share)) if share < 1 else lowest
    return max(min(lower, fails - unit) // unit * unit, lowest)
