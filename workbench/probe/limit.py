"""The OOM threshold: the largest |V| that fits a device, as a bracket no wider than 1 %."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.devices import device
from workbench.errors import RequestError
from workbench.probe.allocator import allocator_of
from workbench.probe.peak import Peak, predicted_peak
from workbench.probe.predict import capacity_of
from workbench.probe.states import check_states
from workbench.probe.trace import trace
from workbench.spec import MAX_TOKENS, Cell

WIDTH = 0.01
"""Relative width of the bracket."""
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
    capacity, _ = capacity_of(cell, target)
    if capacity is None:
        raise RequestError(
            f"device {target.name!r}: has no fixed capacity; give --memory-cap BYTES"
        )
    allocator = allocator_of(target)
    peaks: dict[int, Peak] = {}

    def need(num_visual: int) -> int:
        if num_visual not in peaks:
            point = cell.replace(num_visual=num_visual)
            peaks[num_visual] = predicted_peak(point, trace(point, allocator))
        return peaks[num_visual].total

    fits, fails = bracket(need, capacity)
    worst = peaks[fails if fails is not None else max(peaks)]
    return Limit(
        cell=cell,
        source="predicted",
        device=target.name,
        max_visual=fits,
        fails_at=fails,
        capacity_bytes=capacity,
        stopped_by=worst.dominant if fails is not None else f"nothing up to {MAX_TOKENS:,} tokens",
    )


def bracket(need: Callable[[int], int], capacity: int) -> tuple[int | None, int | None]:
    """(fits, fails) with fails ≤ fits + max(1, 1 %): ``need`` grows with |V|, about as a parabola.

    The next guess is where the parabola through the last three points meets the capacity; when it
    does not narrow the bracket, the middle is taken.
    """
    if need(0) > capacity:
        return None, 0
    low, high = 0, None
    seen = {0: need(0)}
    guess = START
    while high is None or high - low > max(1, int(WIDTH * low)):
        seen[guess] = need(guess)
        if seen[guess] <= capacity:
            if guess == MAX_TOKENS:
                return guess, None
            low = max(low, guess)
        else:
            high = guess if high is None else min(high, guess)
        guess = _next(seen, low, high, capacity)
    return low, high


def _next(seen: dict[int, int], low: int, high: int | None, capacity: int) -> int:
    root = _root(seen, capacity)
    if high is None:
        # Aim just beyond the root, and far enough where there is no root yet.
        aim = 8 * max(low, START) if root is None else int(root * 1.004) + 1
        return min(max(aim, low + 1), MAX_TOKENS, max(64 * low, START))
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
