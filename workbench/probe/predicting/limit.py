"""The OOM threshold, predicted: the largest |V| that fits, as a bracket no wider than 1 %."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from workbench.devices import device
from workbench.lvlm.build import visual_unit
from workbench.probe.counting.allocator import Allocator, allocator_of
from workbench.probe.counting.states import check_states
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.peak import Peak, predicted_peak
from workbench.probe.predicting.predict import fixed_capacity, model_flags
from workbench.probe.predicting.search import WIDTH
from workbench.spec import MAX_TOKENS, Cell

START = 65_536
"""The first guess: far enough for a line from |V| = 0 to point at a large card's threshold."""


@dataclass(frozen=True)
class Limit:
    """``max_visual`` fits and ``fails_at`` does not; None where even nothing fits, or all does."""

    cell: Cell
    source: str
    device: str
    max_visual: int | None
    fails_at: int | None
    capacity_bytes: int
    stopped_by: str
    flags: list[str] = field(default_factory=list)
    """What a reader should know, as a record's flags."""

    def document(self) -> dict[str, Any]:
        """The JSON document of the command line's contract."""
        fields = {k: v for k, v in vars(self).items() if k != "cell"}
        return {"cell": self.cell.document(), "key": self.cell.key, **fields}


def predicted_limit(cell: Cell, device_name: str) -> Limit:
    """The threshold of a cell, whose own |V| is not read.

    Raises RequestError for a device without a capacity, and as ``predict`` does.
    """
    target = device(device_name)
    check_states(cell)
    capacity = fixed_capacity(cell, target)
    fits, fails, stopped_by = predicted_bracket(cell, capacity, allocator_of(target))
    return Limit(
        cell=cell,
        source="predicted",
        device=target.name,
        max_visual=fits,
        fails_at=fails,
        capacity_bytes=capacity,
        stopped_by=stopped_by,
        flags=model_flags(cell),
    )


def predicted_bracket(
    cell: Cell, capacity: int, allocator: Allocator
) -> tuple[int | None, int | None, str]:
    """(fits, fails, what stops it), as ``Limit`` has them."""
    unit = visual_unit(cell)
    peaks: dict[int, Peak] = {}

    def need(count: int) -> int:
        if count == 0 and cell.num_text == 0:
            return 0  # No token at all: there is no such cell, and it would need nothing.
        if count not in peaks:
            point = cell.replace(num_visual=count * unit)
            peaks[count] = predicted_peak(point, trace(point, allocator))
        return peaks[count].total

    fits, fails = bracket(need, capacity, START // unit, MAX_TOKENS // unit)
    if fails is None:
        return fits and fits * unit, None, f"nothing up to {MAX_TOKENS // unit * unit:,} tokens"
    return fits and fits * unit, fails * unit, peaks[fails].dominant


def bracket(
    need: Callable[[int], int], capacity: int, start: int = START, most: int = MAX_TOKENS
) -> tuple[int | None, int | None]:
    """(fits, fails) with fails ≤ fits + max(1, 1 %): ``need`` grows with |V|, about as a parabola.

    The next guess is where the parabola through the last three points meets the capacity; when it
    does not narrow the bracket, the middle is taken.
    """
    if need(0) > capacity:
        return None, 0
    low, high = 0, None
    seen = {0: need(0)}
    guess = start
    while high is None or high - low > max(1, int(WIDTH * low)):
        seen[guess] = need(guess)
        if seen[guess] <= capacity:
            if guess == most:
                return guess, None
            low = max(low, guess)
        else:
            high = guess if high is None else min(high, guess)
        guess = _next(seen, low, high, capacity, start, most)
    return low, high


def _next(
    seen: dict[int, int], low: int, high: int | None, capacity: int, start: int, most: int
) -> int:
    root = _root(seen, capacity)
    if high is None:
        # Aim just beyond the root, and far enough where there is no root yet.
        aim = 8 * max(low, start) if root is None else int(root * 1.004) + 1
        return min(max(aim, low + 1), most, max(64 * low, start))
    if root is not None:
        # The bracket closes from the side that is still open.
        below, above = int(root * 0.996), int(root * 1.004) + 1
        for aim in (below, above) if root - low > high - root else (above, below):
            if low < aim < high and (aim - low > 1 or high - aim > 1):
                return aim
    return (low + high) // 2


def _root(seen: dict[int, int], capacity: int) -> float | None:
    """Where a parabola through three points near the capacity meets it (a line through two)."""
    nearest = sorted(seen, key=lambda v: abs(seen[v] - capacity))[:3]
    if len(nearest) < 2:
        return None
    x0, x1 = nearest[:2]
    slope = (seen[x1] - seen[x0]) / (x1 - x0)
    if len(nearest) == 2:
        return None if slope <= 0 else x0 + (capacity - seen[x0]) / slope
    x2 = nearest[2]
    bend = ((seen[x2] - seen[x0]) / (x2 - x0) - slope) / (x2 - x1)
    # y = y0 + slope (x - x0) + bend (x - x0)(x - x1); solve for t = x - x0.
    b = slope + bend * (x0 - x1)
    c = float(seen[x0] - capacity)
    if abs(bend) * abs(c) < 1e-12 * b * b:
        return None if b <= 0 else x0 - c / b
    under = b * b - 4 * bend * c
    if under < 0:
        return None
    roots = [x0 + (-b + sign * under**0.5) / (2 * bend) for sign in (1, -1)]
    ahead = [r for r in roots if r > 0]
    return min(ahead, key=lambda r: abs(r - x0)) if ahead else None
