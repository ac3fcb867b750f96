"""Seconds of whole iterations: CUDA events on a card, a monotonic clock on the CPU."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import cuda

from workbench.lvlm.workload import Workload
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.stats import median_interval

SLOW_S = 5.0
"""Iterations over this take 3 samples after one warm-up."""
SLOW_SAMPLES = 3
MIN_TOTAL_S = 0.5
"""Timed seconds in all that a precise median needs at least."""
WINDOW_S = 0.05
AGREEMENT = 0.02
MAX_WINDOWS = 8


@dataclass
class Timing:
    """Every sample in seconds, by metric, in the order taken; flags for unmet criteria."""

    samples: dict[str, list[float]] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)
    """When each whole iteration began and ended, by the monotonic clock."""
    marked: list[int] = field(default_factory=list)
    """Indices of samples taken under throttling or beside another process."""
    metrics: dict[str, int | float | None] = field(default_factory=dict)
    """What was read meanwhile."""
    details: dict[str, Any] = field(default_factory=dict)

    def add(self, times: dict[str, float]) -> None:
        for name, seconds in times.items():
            self.samples.setdefault(name, []).append(seconds)

    @property
    def whole(self) -> list[float]:
        """Samples of whole iterations."""
        return self.samples.get("time_s", [])


def iterate(workload: Workload) -> dict[str, float]:
    """One iteration, timed: ``time_s`` and, for a train pass, its forward and backward.

    Micro-batches that are added up have no phases of their own.
    """
    if workload.cell.accumulate > 1:
        return {"time_s": seconds_of(workload.step, workload.context.device)}
    if workload.context.device.type == "cuda":
        return _iterate_cuda(workload)
    train = workload.cell.pass_ == "train"
    start = time.perf_counter()
    outputs = workload.run_forward()
    middle = time.perf_counter()
    if not train:
        return {"time_s": middle - start}
    workload.run_backward(outputs)
    del outputs
    stepping = time.perf_counter()
    workload.run_optimizer()
    end = time.perf_counter()
    return _phases(workload, end - start, middle - start, stepping - middle, end - stepping)


def seconds_of(run: Callable[[], None], device: torch.device) -> float:
    """Seconds of one call by the device's own clock."""
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    begin, end = (cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    cuda.synchronize(device)
    return begin.elapsed_time(end) / 1e3


def _iterate_cuda(workload: Workload) -> dict[str, float]:
    train = workload.cell.pass_ == "train"
    events = [cuda.Event(enable_timing=True) for _ in range(4)]
    events[0].record()
    outputs = workload.run_forward()
    events[1].record()
    if train:
        workload.run_backward(outputs)
    del outputs
    events[2].record()
    workload.run_optimizer()
    events[3].record()
    cuda.synchronize(workload.context.device)
    whole, forward, backward, stepping = (
        events[a].elapsed_time(events[b]) / 1e3 for a, b in ((0, 3), (0, 1), (1, 2), (2, 3))
    )
    return _phases(workload, whole, forward, backward, stepping) if train else {"time_s": whole}


def _phases(
    workload: Workload, whole: float, forward: float, backward: float, stepping: float
) -> dict[str, float]:
    times = {"time_s": whole, "forward_s": forward, "backward_s": backward}
    return times if workload.optimizer is None else {**times, "optimizer_s": stepping}


Clock = Callable[[], float]


def settle(
    run: Callable[[], dict[str, float]],
    typical_s: float,
    stop_at: float,
    now: Clock = time.monotonic,
) -> bool:
    """Warm up until the medians of two consecutive windows agree; False where they never do."""
    count = max(1, round(WINDOW_S / max(typical_s, 1e-6)))
    previous = None
    for _ in range(MAX_WINDOWS):
        times = []
        for _ in range(count):
            if now() >= stop_at:
                return False
            times.append(run()["time_s"])
        median = sorted(times)[len(times) // 2]
        if previous is not None and abs(median - previous) <= AGREEMENT * previous:
            return True
        previous = median
    return False


def sample(
    run: Callable[[], dict[str, float]],
    protocol: Protocol,
    typical_s: float,
    stop_at: float,
    now: Clock = time.monotonic,
) -> Timing:
    """Samples until the protocol's criteria hold or the clock passes ``stop_at``."""
    timing = Timing()
    slow = typical_s > SLOW_S
    needed = min(SLOW_SAMPLES, protocol.min_samples) if slow else protocol.min_samples
    while True:
        start = time.monotonic()
        timing.add(run())
        timing.spans.append((start, time.monotonic()))
        enough = len(timing.whole) >= needed
        precise = slow or protocol.precision is None or _precise(timing.whole, protocol.precision)
        if enough and precise:
            return timing
        if now() >= stop_at:
            timing.flags += _unmet(timing.whole, needed, protocol, precise)
            return timing


def half_width(samples: list[float]) -> float | None:
    """Relative 95 % half-width of the median by order statistics; None below 6 samples."""
    return median_interval(samples).relative_half_width


def _precise(samples: list[float], precision: float) -> bool:
    width = half_width(samples)
    return sum(samples) >= MIN_TOTAL_S and width is not None and width <= precision


def _unmet(samples: list[float], needed: int, protocol: Protocol, precise: bool) -> list[str]:
    flags = []
    if len(samples) < needed:
        flags.append(f"few_samples: {len(samples)} of {needed} within {protocol.max_seconds:g} s")
    if not precise:
        width = half_width(samples)
        reached = "unknown" if width is None else f"{width:.1%}"
        flags.append(
            f"imprecise: 95 % half-width of the median is {reached}, "
            f"asked {protocol.precision:.1%}"
        )
    return flags
