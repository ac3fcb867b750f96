"""How much of an iteration the card was busy: a card that waits for Python says nothing of it."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import cuda
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from workbench.lvlm.workload import Workload

HOST_BOUND = 0.9
"""Below this share of an iteration the time is the host's more than the method's."""


def busy_seconds(workload: Workload) -> float | None:
    """Seconds in which the card worked in one iteration more, under torch's profiler.

    None where the profiler saw no kernel. Its own cost falls on the host: kernels take no longer.
    """
    device = workload.context.device
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as profiler:
        workload.step()
        cuda.synchronize(device)
    index = cuda.current_device() if device.index is None else device.index
    return union(device_spans(events_of(profiler), index)) / 1e9 or None


def host_bound(share: float) -> list[str]:
    """The flag of a record whose card was busy for that share of the iteration, if it has one."""
    if share >= HOST_BOUND:
        return []
    return [
        f"host_bound: the card was busy for {share:.0%} of an iteration (under {HOST_BOUND:.0%}), "
        "so that time_s tells of the host that feeds it"
    ]


def events_of(profiler: torch.profiler.profile) -> Any:
    """What a profile that is over has seen."""
    assert profiler.profiler is not None, "the profiler ran"
    results = profiler.profiler.kineto_results
    assert results is not None, "the profiler stopped"
    return results.events()


def device_spans(events: Iterable[Any], index: int) -> list[tuple[int, int]]:
    """Start and end in ns of each kernel, copy and fill on card ``index``.

    A named range is drawn on the card's line too; it spans the gaps between its kernels.
    """
    return [
        (event.start_ns(), event.start_ns() + event.duration_ns())
        for event in events
        if event.device_type() == DeviceType.CUDA
        and event.device_index() == index
        and not event.is_user_annotation()
    ]


def union(spans: Iterable[tuple[int, int]]) -> int:
    """Length of the union of intervals."""
    covered = end = 0
    for start, stop in sorted(spans):
        covered += max(0, stop - max(start, end))
        end = max(end, stop)
    return covered
