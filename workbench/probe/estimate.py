"""How long points will take on this machine: a forecast for a progress bar, never a result."""

import time
from dataclasses import dataclass
from functools import cache

import torch

from workbench.lvlm.build import DTYPES
from workbench.probe.measure import SLOW_S
from workbench.probe.memory_limit import asked_limits
from workbench.probe.predict import predict
from workbench.spec import Point

RATE_SECONDS = 0.3
Placed = tuple[Point, str]
"""A point and the device that it resolves to: ``cpu``, ``cuda:N``, or a device entry."""


def estimate(points: list[Placed]) -> list[float]:
    """Seconds for each point: predicted FLOPs over the rate of a plain matmul of this machine.

    Points that differ in |V| alone share the predictions of three of them, since their FLOPs are
    a quadratic of |V|. A prediction takes what predicting its like just took, a cell that will run
    out of memory half an iteration, and what a kernel cannot serve next to nothing.
    """
    kinds: dict[tuple[str, str, str], list[Placed]] = {}
    for placed in points:
        kinds.setdefault(_kind(placed), []).append(placed)
    for point, device in points[:1]:  # what is imported on the way is not the cells' time
        predict(point.cell, device if point.source == "predicted" else "cpu")
    forecasts = {kind: Forecast.of(members) for kind, members in kinds.items()}
    return [_seconds(placed, forecasts[_kind(placed)]) for placed in points]


def _kind(placed: Placed) -> tuple[str, str, str]:
    point, device = placed
    return point.cell.replace(num_visual=1).key, point.source, device


@dataclass(frozen=True)
class Forecast:
    """What the points of one kind cost: (|V|, FLOPs, peak bytes) at up to three |V|."""

    known: list[tuple[int, float, float]]
    seconds: float
    """To predict one of them."""

    @classmethod
    def of(cls, members: list[Placed]) -> "Forecast":
        """Predict the smallest, the largest and one between; one will do for predicted points."""
        sizes = {placed[0].cell.num_visual: placed for placed in members}
        by_size = [sizes[size] for size in sorted(sizes)]
        chosen = {0, len(by_size) // 2, len(by_size) - 1}
        if members[0][0].source == "predicted":
            chosen = {0}
        known, start = [], time.perf_counter()
        for index in sorted(chosen):
            point, device = by_size[index]
            found = predict(point.cell, device if point.source == "predicted" else "cpu").metrics
            flops, peak = found.get("flops"), found.get("peak_bytes")
            if flops is not None and peak is not None:
                known.append((point.cell.num_visual, float(flops), float(peak)))
        return cls(known, (time.perf_counter() - start) / len(chosen))

    def at(self, num_visual: int) -> tuple[float, float]:
        """FLOPs and peak bytes by the polynomial through what is known."""
        flops = peak = 0.0
        for i, (here, known_flops, known_peak) in enumerate(self.known):
            weight = 1.0
            for j, (other, _, _) in enumerate(self.known):
                if i != j:
                    weight *= (num_visual - other) / (here - other)
            flops, peak = flops + weight * known_flops, peak + weight * known_peak
        return flops, peak


def _seconds(placed: Placed, forecast: Forecast) -> float:
    point, device = placed
    if point.source == "predicted" or not forecast.known:
        return forecast.seconds
    flops, peak = forecast.at(point.cell.num_visual)
    iteration = flops / matmul_rate(point.cell.dtype, device)
    if any(peak > limit for limit in _limits(point, device)):
        return forecast.seconds + iteration / 2
    wanted = point.protocol.min_samples
    samples = min(wanted, 3) if iteration > SLOW_S else wanted
    timed = min(samples * iteration, point.protocol.max_seconds)
    return forecast.seconds + 2 * iteration + timed


def _limits(point: Point, device: str) -> list[int]:
    if device == "cpu":
        return asked_limits(point)
    return [*asked_limits(point), torch.cuda.get_device_properties(device).total_memory]


@cache
def matmul_rate(dtype: str, device: str) -> float:
    """FLOP/s of a square matmul on ``cpu`` or ``cuda:N``, from about 0.3 s of them."""
    size = 1024 if device == "cpu" else 4096
    a = torch.randn(size, size, device=device).to(DTYPES[dtype])
    _multiply(a, device)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < RATE_SECONDS:
        _multiply(a, device)
        done += 1
    return done * 2 * size**3 / (time.perf_counter() - start)


def _multiply(a: torch.Tensor, device: str) -> None:
    a @ a
    if device != "cpu":
        torch.cuda.synchronize(device)
