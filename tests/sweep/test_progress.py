"""What a sweep says while it runs."""

import time

import pytest

from tests.sweep.test_pace import tasks
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
