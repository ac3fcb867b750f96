"""Longest first: no worker is left with a long task at the end."""

import random

import pytest

from workbench.sweep.schedule import longest_first, shares, wall_seconds


def test_equal_tasks_keep_their_order() -> None:
    assert longest_first("abcde", [1, 3, 2, 3, 1]) == list("bdcae")


@pytest.mark.parametrize(
    ("seconds", "workers", "wall"),
    [([], 3, 0), ([5], 3, 5), ([3, 3, 2, 2, 2], 2, 7), ([1] * 8, 4, 2), ([9, 1, 1, 1], 2, 9)],
)
def test_the_wall_time_is_that_of_the_last_worker(
    seconds: list[float], workers: int, wall: float
) -> None:
    assert wall_seconds(seconds, workers) == wall


def test_the_shares_hold_each_task_once_and_end_together() -> None:
    rolled = random.Random(0)
    seconds = [rolled.expovariate(1) for _ in range(1000)]
    found = shares(seconds, 16)
    assert sorted(index for share in found for index in share) == list(range(1000))
    loads = [sum(seconds[index] for index in share) for share in found]
    assert max(loads) == pytest.approx(wall_seconds(seconds, 16))
    assert max(loads) < 1.01 * sum(seconds) / 16
    assert all(
        [seconds[i] for i in share] == sorted((seconds[i] for i in share), reverse=True)
        for share in found
    )
