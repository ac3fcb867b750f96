"""How long the cells of a sweep still take, and which of them a budget of minutes has room for."""

import time
from collections.abc import Callable, Mapping, Sequence

from workbench.probe.workers.client import Client
from workbench.sweep.plan import CellId, Task

TRUSTED_S = 5.0
"""Seconds of experience that a forecast is worth: a few short cells correct it little."""


def forecast(tasks: Sequence[Task], client: Client, card: str | None = None) -> list[float]:
    """Seconds of each task, by a worker's forecast; raises as ``Client.estimate`` does.

    ``card`` is the device entry that stands in for GPUs which are on other machines.
    """
    places = (card if card and task.on_gpu else task.device for task in tasks)
    return client.estimate([(t.point, place) for t, place in zip(tasks, places, strict=True)])


class Pace:
    """A forecast, corrected by what the cells of the same source took so far.

    A cell takes a fixed time (its process is told, its layer built) and its forecast times a
    factor. Both are of the cells that ended: the fixed time is the least that any took beyond its
    forecast, the factor the ratio of the sums of what is left, with ``TRUSTED_S`` on either side.
    """

    def __init__(self, forecast: Mapping[CellId, float] | None = None) -> None:
        self._forecast = dict(forecast or {})
        self._ended: dict[str, list[tuple[float, float]]] = {}

    def end(self, identity: CellId, seconds: float) -> None:
        """The cell took so long."""
        expected = self._forecast.get(identity)
        if expected is not None:
            self._ended.setdefault(identity[1], []).append((expected, seconds))

    def seconds(self, identity: CellId) -> float | None:
        """What the cell will take; None without a forecast."""
        expected = self._forecast.get(identity)
        if expected is None:
            return None
        past = self._ended.get(identity[1], [])
        fixed = min((max(0.0, spent - forecast) for forecast, spent in past), default=0.0)
        spent = sum(max(0.0, spent - fixed) for _, spent in past)
        factor = (spent + TRUSTED_S) / (sum(forecast for forecast, _ in past) + TRUSTED_S)
        return fixed + factor * expected

    @property
    def is_known(self) -> bool:
        """Whether any cell of the forecast has ended."""
        return bool(self._ended)


class Deadline:
    """When no further task is begun, by the monotonic clock; None is never.

    ``seconds`` says what a task will take: one that would end after the deadline is not begun.
    """

    def __init__(
        self,
        stop_at: float | None = None,
        seconds: Callable[[Task], float | None] = lambda _: None,
    ) -> None:
        self.stop_at = stop_at
        self._seconds = seconds
        self.left: list[Task] = []
        """Tasks that were not begun."""

    def is_over(self) -> bool:
        return self.stop_at is not None and time.monotonic() >= self.stop_at

    def leaves_out(self, task: Task) -> bool:
        """Whether the task would not end in time; then it is among those that are left."""
        if self.stop_at is None:
            return False
        late = time.monotonic() + (self._seconds(task) or 0.0) > self.stop_at
        if late:
            self.left.append(task)
        return late
