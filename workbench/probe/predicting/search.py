"""The search for a threshold by trials that cost a failure each: few failures, then few trials.

A failing trial is a real out-of-memory, so their number is bounded; passing ones only take time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import comb

from workbench.spec import MAX_TOKENS

WIDTH = 0.01
"""Relative width of a bracket."""
MAX_FAILURES = 6
PROOF = 3
"""Iterations that the passing end must survive."""
FOR_PROOFS = 2
"""Failures kept back if they can be: what ran once may fail later, by fragmentation."""
FAR = 20
"""Points of a bracket so wide that one more failure goes into dividing it, in wider steps."""
UP = (0.01, 0.03, 0.07, 0.15, 0.3, 0.6, 1.0)
"""How far beyond a guess that passed the next ones are tried; then each is twice the last."""
DOWN = (0.01, 0.1, 0.5)
"""How far below a guess that failed; then the rest is divided."""

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


def step_at(visual: int, unit: int) -> int:
    """The widest bracket allowed above ``visual``: 1 %, in whole units, at least one."""
    return max(unit, int(WIDTH * visual) // unit * unit)


def search(fits: Fits, guess: int, unit: int = 1, lowest: int = 0) -> Found:
    """Bracket the largest |V| that fits, by trials of one iteration around ``guess``.

    |V| are multiples of ``unit`` from ``lowest`` on. The passing end runs ``PROOF`` iterations. At
    most ``MAX_FAILURES`` trials fail; the bracket may then be wider, which ``Found.closed`` says.
    """
    found = Found()

    def attempt(visual: int, iterations: int = 1) -> bool:
        passed = fits(visual, iterations)
        found.trials.append((visual, iterations, passed))
        if passed:
            found.passes = visual if found.passes is None else max(found.passes, visual)
        else:
            found.fails = visual if found.fails is None else min(found.fails, visual)
            below = [v for v, _, ran in found.trials if ran and v < found.fails]
            found.passes = max(below, default=None)
        return passed

    start = max(lowest, guess // unit * unit)
    _outwards(attempt, found, start, unit, lowest)
    proven: set[int] = set()
    while found.failures < MAX_FAILURES:
        if found.passes is None:  # A proof failed, and nothing below it was tried.
            assert found.fails is not None, "what did not pass failed"
            if found.fails <= lowest:
                return found
            _downwards(attempt, found, unit, lowest)
            continue
        between = [] if found.fails is None else edges(found.passes, found.fails, unit)
        left = MAX_FAILURES - found.failures
        if between and left > 1:
            spare = max(left - (1 if len(between) > FAR else FOR_PROOFS), 1)
            if spare == 1:  # One by one from below: in wider steps where they would be too many.
                between = between[len(between) // FAR :]
            attempt(divide(between, spare))
        elif found.passes in proven:
            return found
        else:
            proven.add(found.passes)
            attempt(found.passes, PROOF)
    return found


def _outwards(
    attempt: Callable[[int], bool], found: Found, start: int, unit: int, lowest: int
) -> None:
    """From the guess upwards until one fails, or downwards until one passes."""
    if not attempt(start):
        _downwards(attempt, found, unit, lowest)
        return
    most = MAX_TOKENS // unit * unit
    shares, far = iter(UP), UP[-1]
    while found.passes is not None and found.passes < most:
        share = next(shares, None)
        if share is None:
            far = share = 2 * far + 1
        higher = min(start + max(1, int(start * share) // unit) * unit, most)
        if higher > found.passes and not attempt(higher):
            return


def _downwards(attempt: Callable[[int], bool], found: Found, unit: int, lowest: int) -> None:
    """From what failed downwards until one passes; a few steps, then the lowest."""
    assert found.fails is not None, "something failed"
    failed = found.fails
    for share in (*DOWN, 1.0):
        lower = max(lowest, failed - max(1, int(failed * share) // unit) * unit)
        if found.failures == MAX_FAILURES:
            return
        if lower < found.fails and attempt(lower):
            return


def edges(passes: int, fails: int, unit: int) -> list[int]:
    """The |V| strictly between, each at most 1 % above the one before."""
    found, at = [], passes + step_at(passes, unit)
    while at < fails:
        found.append(at)
        at += step_at(at, unit)
    return found


def divide(points: list[int], failures: int) -> int:
    """The point to try next so that the fewest trials find where ``points`` begin to fail.

    With ``failures`` to spend, t trials tell sum over i ≤ failures of C(t, i) points apart (the
    egg-dropping problem); of the splits that keep to the fewest trials the evenest is taken.
    """
    trials = 1
    while _tell_apart(trials, failures) < len(points):
        trials += 1
    below = _tell_apart(trials - 1, failures - 1)
    above = _tell_apart(trials - 1, failures)
    middle = (len(points) - 1) // 2
    return points[min(max(middle, len(points) - 1 - above), below)]


def _tell_apart(trials: int, failures: int) -> int:
    return sum(comb(trials, i) for i in range(1, failures + 1))
