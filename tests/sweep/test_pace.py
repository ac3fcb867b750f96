"""What the cells that ended say of those to come, and which of them the minutes have room for."""

import time
from pathlib import Path

import pytest

from workbench.store import Store
from workbench.sweep.budget import TAG, described, is_spent, note_dropped
from workbench.sweep.pace import Deadline, Pace
from workbench.sweep.plan import Task, plan
from workbench.vocabulary.record import Environment
from workbench.vocabulary.sweep import Grid, Sweep

SIZES = (64, 128, 256)


def tasks() -> list[Task]:
    sizes = Grid(visual=SIZES, source="predicted", device="h100-80gb")
    return plan(Sweep(name="s", grids=(sizes,)))


def test_a_few_short_cells_correct_a_forecast_little_and_long_ones_much() -> None:
    ids = [task.identity for task in tasks()]
    pace = Pace({ids[0]: 0.1, ids[1]: 10.0, ids[2]: 10.0})
    assert pace.seconds(ids[1]) == 10
    assert not pace.is_known
    pace.end(ids[0], 1.1)  # a second of starting
    assert pace.is_known
    assert pace.seconds(ids[1]) == pytest.approx(11, rel=0.03)
    pace.end(ids[1], 31)  # this machine is three times as slow
    assert pace.seconds(ids[2]) == pytest.approx(1 + 10 * 35.1 / 15.1, rel=0.01)
    assert pace.seconds(("another", "predicted", "h100-80gb")) is None
    pace.end(("another", "predicted", "h100-80gb"), 5)  # no forecast: says nothing
    assert pace.seconds(ids[2]) == pytest.approx(1 + 10 * 35.1 / 15.1, rel=0.01)


def test_one_source_says_nothing_of_the_other() -> None:
    pace = Pace({("a", "predicted", "x"): 1.0, ("a", "measured", "cpu"): 1.0})
    pace.end(("a", "predicted", "x"), 100)
    assert pace.seconds(("a", "measured", "cpu")) == 1


def test_a_task_that_would_end_too_late_is_left_out() -> None:
    first, second, third = tasks()
    seconds = {first.identity: 1.0, second.identity: 1e6}
    over = Deadline(time.monotonic() + 60, lambda task: seconds.get(task.identity))
    assert [over.leaves_out(task) for task in (first, second, third)] == [False, True, False]
    assert over.left == [second]
    assert not over.is_over()
    assert Deadline(time.monotonic() - 1).is_over()
    assert not Deadline().leaves_out(second)
    assert not Deadline().is_over()


def test_what_was_dropped_is_noted_beside_what_people_wrote(tmp_path: Path) -> None:
    left = tasks()
    told = "3 cells: h100-80gb s_attn sdpa layer forward |V| = 64, 128, 256"
    assert described(left) == told
    with Store.open(tmp_path / "s.db", "w") as store:
        run = store.begin_run("s", {}, Environment())
        of = (run, "", "", "")
        assert not is_spent(store, run)
        store.write_note(of, "Ours.", ["kept"])
        for _ in "12":
            note_dropped(store, run, 2.0, left)
            assert store.notes()[of].text == f"Ours.\n{TAG}: 2 minutes had no room for {told}"
        assert store.notes()[of].tags == ("kept", TAG)
        assert is_spent(store, run)
        note_dropped(store, run, 2.0, [])
        assert store.notes()[of] == ("Ours.", ("kept",))
        store.write_note(of, "x" * 1990, [])
        note_dropped(store, run, 2.0, left)
        assert len(store.notes()[of].text) <= 2000
