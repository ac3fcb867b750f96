"""Preparation: cold iterations are told from warm ones, within a budget, by a clock of ours."""

import pytest

from workbench.probe.measuring.prepare import prepare


class Clock:
    """Moves on by the next of ``seconds`` whenever ``step`` runs."""

    def __init__(self, *seconds: float) -> None:
        self.now, self.left = 100.0, list(seconds)

    def __call__(self) -> float:
        return self.now

    def step(self) -> None:
        self.now += self.left.pop(0)


@pytest.mark.parametrize(
    ("seconds", "count"),
    [
        ((20.0, 19.0), 2),  # a large cell: nothing is run a third time
        ((11.0, 0.02, 0.013), 3),  # compiled once
        ((11.0, 5.0, 0.013, 0.013), 4),  # compiled anew for the second
        ((0.01, 0.05), 2),  # tracking costs more than preparing
    ],
)
def test_preparing_ends_with_an_iteration_as_long_as_the_next(seconds, count):
    clock = Clock(*seconds, 0.0)
    found = prepare([clock.step, clock.step], clock.step, 120, clock)
    assert found.warm
    assert found.iterations == pytest.approx(seconds)
    assert found.seconds == pytest.approx(sum(seconds))
    assert found.typical_s == pytest.approx(seconds[count - 1])
    assert clock.left == [0.0]


@pytest.mark.parametrize(
    ("seconds", "ran"), [((130.0, 1.0), 1), ((100.0, 30.0, 1.0), 2), ((60, 20, 5, 1, 1), 5)]
)
def test_the_budget_is_looked_at_between_iterations(seconds, ran):
    clock = Clock(*seconds)
    found = prepare([clock.step, clock.step], clock.step, 120, clock)
    assert len(found.iterations) == ran
    assert found.warm == (ran == 5)
    if not found.warm:
        assert found.reason == (
            f"no warm iteration: preparing took {found.seconds:.3g} s ({ran} "
            f"iteration{'s' * (ran > 1)}), and --max-prepare is 120 s"
        )


def test_steps_that_are_enough_are_not_held_against_the_budget():
    clock = Clock(500.0)
    assert prepare([clock.step], None, 120, clock).warm
