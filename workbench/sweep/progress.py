"""What a running sweep says on standard error: a bar on a terminal, a line a cell elsewhere."""

import sys
import time
from typing import TYPE_CHECKING, Any, Self

from workbench.sweep.plan import CellId, Task
from workbench.vocabulary.record import Record, Status

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 5 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Progress:
    """Cells done, the current cell, and the time left.

    The time left is what remains of the forecast, corrected by how long the cells took so far; it
    is unknown without a forecast.
    """

    def __init__(self, total: int, done: int, workers: int = 1) -> None:
        self.total, self.done, self.workers = total, done, workers
        self._forecast: dict[CellId, float] = {}
        self._spent = self._expected = 0.0
        self._bar: Bar | None = None
        self._row: Any = None
        self._since: dict[CellId, float] = {}

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bar = _bar()
            self._row = self._bar.add_task(
                "starting", total=self.total, completed=self.done, left=""
            )
            self._bar.start()
            self._bar.refresh()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def expect(self, seconds: dict[CellId, float]) -> None:
        """A forecast of the tasks to come."""
        self._forecast = dict(seconds)

    def drop(self, task: Task) -> None:
        """Another sweep has run this task."""
        self.done += 1
        self._forecast.pop(task.identity, None)

    def begin(self, task: Task) -> None:
        """A task starts."""
        self._since[task.identity] = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._row, description=_title(task), left=self._left(), refresh=True)

    def end(self, task: Task, record: Record) -> None:
        """A task has its record."""
        self.done += 1
        spent = time.monotonic() - self._since.pop(task.identity)
        self._expected += self._forecast.pop(task.identity, 0.0)
        self._spent += spent
        if self._bar is not None:
            self._bar.update(self._row, completed=self.done, left=self._left(), refresh=True)
            if record.status.done:
                return
        self.say(f"[{self.done}/{self.total}] {_title(task)}: {_outcome(record)}{self._left()}")

    def at(self, done: int) -> None:
        """So many cells have ended, wherever they run."""
        self.done = done
        if self._bar is not None:
            self._bar.update(self._row, description="running", completed=done, refresh=True)
        else:
            self.say(f"[{done}/{self.total}] cells have ended")

    def say(self, line: str) -> None:
        """A line that stays, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def _left(self) -> str:
        if not self._expected or not self._forecast:
            return ""
        left = sum(self._forecast.values()) * self._spent / self._expected / self.workers
        return f", about {duration(left)} left"


def _bar() -> "Bar":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    return Bar(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.description}{task.fields[left]}", markup=False),
        console=Console(stderr=True),
        auto_refresh=False,  # drawing would take time from what is being measured
    )


def _title(task: Task) -> str:
    return f"{task.point.source} on {task.device_name}: {task.point.cell.title}"


def _outcome(record: Record) -> str:
    seconds = record.metrics.get("time_s")
    if record.status is Status.OK and seconds is not None:
        return f"ok, {seconds:.3g} s/it"
    if record.status in (Status.OK, Status.OOM):
        return str(record.status)
    return f"{record.status}, {record.error}"
