"""What a sweep says while it runs."""

import pty
import sys
import time

import pytest

from tests.sweep.test_pace import tasks
from tests.terminals import written
from workbench.sweep.progress import Progress
from workbench.vocabulary.record import Environment, Record, Status


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (None, "about 16 min 40 s left"),
        (60, "about 16 min 40 s left"),
        (5, "at most 5 min 0 s left"),
    ],
)
def test_the_time_left_is_no_more_than_the_sweep_s_minutes(minutes, words, capsys) -> None:
    first, second, _ = tasks()
    stop_at = None if minutes is None else time.monotonic() + 60 * minutes
    progress = Progress(total=2, done=0, stop_at=stop_at)
    progress.expect({first.identity: 0.0, second.identity: 1000.0})
    progress.begin(first)
    record = Record(
        cell=first.point.cell,
        source="predicted",
        device="h100-80gb",
        status=Status.OK,
        environment=Environment(),
    )
    progress.end(first, record)
    line = capsys.readouterr().err
    assert words in line
    assert ("its minutes end then" in line) == (minutes == 5)


def test_below_the_bar_a_narrow_terminal_shows_what_each_cell_came_to(monkeypatch) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    first = tasks()[0]
    record = Record(
        cell=first.point.cell,
        source="predicted",
        device="h100-80gb",
        status=Status.OK,
        environment=Environment(),
        metrics={"time_s": 0.00221},
    )
    with open(theirs, "w", encoding="utf-8") as screen:
        monkeypatch.setattr(sys, "stderr", screen)
        with Progress(total=2, done=0) as progress:
            progress.begin(first)
            progress.end(first, record)
    lines = written(ours).splitlines()
    bar = next(i for i, line in enumerate(lines) if "1/2" in line)
    assert any(f"[1/2] ok, 2.21 ms/it: {first.point.cell.model}" in line for line in lines[bar:])
