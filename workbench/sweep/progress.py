"""What a running sweep says on standard error: a bar on a terminal, a line a cell elsewhere."""

import sys
import time
from collections import deque
from typing import Any, Self

from workbench.sweep.pace import Pace
from workbench.sweep.plan import CellId, Task
from workbench.vocabulary.record import Record, Status
from workbench.vocabulary.units import quantity

SHOWN = 8
"""Newest results below the bar."""


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 5 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Progress:
    """Cells done, the current cell, and the time left, by the forecast's ``pace``.

    On a terminal the newest results stand below the bar; elsewhere each is a line. No cell is
    begun that would end after ``stop_at``, a time of ``time.monotonic``.
    """

    def __init__(
        self, total: int, done: int, workers: int = 1, stop_at: float | None = None
    ) -> None:
        self.total, self.done, self.workers, self.stop_at = total, done, workers, stop_at
        self.pace = Pace()
        self._expected: set[CellId] = set()
        self._screen: Screen | None = None
        self._since: dict[CellId, float] = {}

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._screen = Screen(self.total, self.done)
        return self

    def __exit__(self, *_: object) -> None:
        if self._screen is not None:
            self._screen.close()

    def expect(self, seconds: dict[CellId, float]) -> None:
        """A forecast of the tasks to come."""
        self.pace = Pace(seconds)
        self._expected = set(seconds)

    def drop(self, task: Task) -> None:
        """Another sweep has run this task."""
        self.done += 1
        self._expected.discard(task.identity)

    def begin(self, task: Task) -> None:
        """A task starts."""
        self._since[task.identity] = time.monotonic()
        if self._screen is not None:
            self._screen.show(self.done, self._beside(task))

    def end(self, task: Task, record: Record) -> None:
        """A task has its record."""
        self.done += 1
        self._expected.discard(task.identity)
        self.pace.end(task.identity, time.monotonic() - self._since.pop(task.identity))
        count, outcome = f"[{self.done}/{self.total}]", _outcome(record)
        line = f"{count} {title(task)}: {outcome}"
        if self._screen is None:
            self.say(", ".join(filter(None, (line, self._left()))))
        elif record.status.done:
            # What it came to first: a narrow terminal cuts a line at its end.
            where = f"{task.point.source} on {task.device_name}"
            self._screen.add(f"{count} {outcome}: {task.point.cell.title}, {where}")
            self._screen.show(self.done, self._beside(task))
        else:
            self.say(line)

    def at(self, done: int) -> None:
        """So many cells have ended, wherever they run."""
        self.done = done
        if self._screen is not None:
            self._screen.show(done, "running")
        else:
            self.say(f"[{done}/{self.total}] cells have ended")

    def say(self, line: str) -> None:
        """A line that stays, above the bar where there is one."""
        if self._screen is not None:
            self._screen.say(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def _beside(self, task: Task) -> str:
        """What stands beside the bar: the time left, and the task."""
        return ": ".join(filter(None, (self._left(), title(task))))

    def _left(self) -> str:
        """The time left, in words; nothing where it is not known."""
        expected = [self.pace.seconds(identity) for identity in self._expected]
        if not expected or not self.pace.is_known:
            return ""
        seconds_left = sum(seconds for seconds in expected if seconds is not None) / self.workers
        room = None if self.stop_at is None else max(0.0, self.stop_at - time.monotonic())
        if room is not None and room < seconds_left:
            return f"at most {duration(room)} left: its minutes end then"
        return f"about {duration(seconds_left)} left"


class Screen:
    """A bar on a terminal with the newest results below it."""

    def __init__(self, total: int, done: int) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        words = TextColumn("{task.description}", markup=False)
        self._bar = Bar(BarColumn(bar_width=24), MofNCompleteColumn(), words)
        self._row = self._bar.add_task("starting", total=total, completed=done)
        self._results: deque[str] = deque(maxlen=SHOWN)
        # Drawing by itself would take time from what is being measured.
        console = Console(stderr=True)
        self._live: Live = Live(self._drawn(), console=console, auto_refresh=False)
        self._live.start(refresh=True)

    def show(self, done: int, words: str) -> None:
        """So many are done; ``words`` stand beside the bar."""
        self._bar.update(self._row, completed=done, description=words)
        self._live.update(self._drawn(), refresh=True)

    def add(self, line: str) -> None:
        """A result, below the bar."""
        self._results.append(line)

    def say(self, line: str) -> None:
        """A line that stays, above the bar."""
        self._live.console.print(line, markup=False, highlight=False)

    def close(self) -> None:
        """What stands there stays."""
        self._live.stop()

    def _drawn(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        return Group(
            self._bar, *(Text(line, no_wrap=True, overflow="ellipsis") for line in self._results)
        )


def title(task: Task) -> str:
    """'measured on cpu: mistral-7b-v0.3 s_attn …'."""
    return f"{task.point.source} on {task.device_name}: {task.point.cell.title}"


def _outcome(record: Record) -> str:
    seconds = record.metrics.get("time_s")
    if record.status is Status.OK and seconds is not None:
        return f"ok, {quantity(seconds, 's')}/it"
    if record.status in (Status.OK, Status.OOM):
        return str(record.status)
    return f"{record.status}, {record.error}"
