"""The order in which several workers take the tasks, and how long that should take."""

import heapq
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def longest_first(items: Sequence[T], seconds: Sequence[float]) -> list[T]:
    """``items`` by descending seconds, equal ones in their order: what several workers take next.

    A long task that is begun last leaves all workers but one idle (Graham, SIAM Journal on Applied
    Mathematics 17, 1969: this order is at most a third longer than the best).
    """
    order = sorted(range(len(items)), key=lambda index: -seconds[index])
    return [items[index] for index in order]


def shares(seconds: Sequence[float], workers: int) -> list[list[int]]:
    """Indices of the tasks that each worker gets: the longest left goes to who is free first."""
    loads = [(0.0, worker) for worker in range(workers)]
    groups: list[list[int]] = [[] for _ in range(workers)]
    for index in longest_first(range(len(seconds)), seconds):
        load, worker = loads[0]
        groups[worker].append(index)
        heapq.heapreplace(loads, (load + seconds[index], worker))
    return groups


def wall_seconds(seconds: Iterable[float], workers: int) -> float:
    """When the last of ``workers`` ends, if each takes the longest task that is left."""
    ends = [0.0] * workers
    for spent in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + spent)
    return max(ends)
