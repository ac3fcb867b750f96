"""The timed samples of a cell beside what the card did meanwhile: its telemetry, who disturbed."""

import os
import time
from collections.abc import Callable

import torch
from torch import cuda

from workbench.lvlm.workload import Workload
from workbench.probe.machine.allocator import VARIABLES
from workbench.probe.machine.nvml import Nvml
from workbench.probe.measuring.telemetry import Telemetry
from workbench.probe.measuring.timing import Timing, iterate, sample
from workbench.vocabulary.metrics import METRICS
from workbench.vocabulary.protocol import Protocol

FACTS = {"power_cap_share": "power_cap_share", "device_bytes": "used_bytes"}
"""Metrics of a card that no sensor of theirs says, and the fact of telemetry that each one is."""


def watched(
    workload: Workload,
    protocol: Protocol,
    typical_s: float,
    stop_at: float,
    nvml: Nvml | None = None,
) -> Timing:
    """Samples of the workload, watched; taken once more where something disturbed them.

    Of the two tries the one with the smaller share of disturbed samples counts. The other's
    samples are kept under ``details["timing"]["discarded"]``.
    """
    device = workload.context.device
    timing = _samples(workload, protocol, typical_s, stop_at, nvml)
    if timing.marked and time.monotonic() < stop_at:
        again = _samples(workload, protocol, typical_s, stop_at, nvml)
        lighter, other = (again, timing) if _share(again) <= _share(timing) else (timing, again)
        lighter.flags.append(
            f"repeated: {len(timing.marked)} of the first {len(timing.whole)} samples were "
            "disturbed"
        )
        lighter.details["timing"]["discarded"] = other.samples
        timing = lighter
    timing.details["timing"] |= {
        "clock": "CUDA events" if device.type == "cuda" else "monotonic",
        "num_threads": torch.get_num_threads(),
        "allocator": allocator(device),
    }
    return timing


def _share(timing: Timing) -> float:
    return len(timing.marked) / len(timing.whole)


def _samples(
    workload: Workload,
    protocol: Protocol,
    typical_s: float,
    stop_at: float,
    nvml: Nvml | None,
) -> Timing:
    def take() -> Timing:
        return sample(lambda: iterate(workload), protocol, typical_s, stop_at)

    return observed(workload.context.device, take, nvml)


def observed(device: torch.device, take: Callable[[], Timing], nvml: Nvml | None = None) -> Timing:
    """What ``take`` samples, with what the card did meanwhile."""
    if device.type != "cuda":
        timing = take()
        timing.metrics["energy_j"] = None
        timing.flags.append("energy_j: a CPU has no NVML")
        timing.details["timing"] = {}
        return timing
    retries = _retries(device)
    with Telemetry(str(device), nvml) as telemetry:
        timing = take()
    account(timing, telemetry)
    met = _retries(device) - retries
    if met:
        timing.flags.append(f"retries: the allocator freed its cache {met} times while timed")
    return timing


def _retries(device: torch.device) -> int:
    return int(cuda.memory_stats(device).get("num_alloc_retries", 0))


def account(timing: Timing, telemetry: Telemetry) -> None:
    """Add to ``timing`` what a watch over all its samples saw: metrics, details, flags, marks."""
    facts = telemetry.summary()
    reasons: dict[str, str] = facts["reasons"]
    used, number = facts["energy_j"], len(timing.whole)
    # The counter moves in steps of its own: over a short span it may not move at all.
    timing.metrics["energy_j"] = used / number if used else None
    if not used:
        why = reasons.get("energy_j", "the card's counter did not move during the samples")
        timing.flags.append(f"energy_j: {why}")
    sources = {name: (fact, 1.0) for name, fact in FACTS.items()}
    sources |= {
        name: (metric.sensor.fact or name, metric.sensor.factor)
        for name, metric in METRICS.items()
        if metric.sensor is not None
    }
    for metric, (fact, unit) in sources.items():
        timing.metrics[metric] = None if facts[fact] is None else facts[fact] * unit
        if facts[fact] is None:
            timing.flags.append(f"{metric}: {reasons.get(fact, 'the driver did not say')}")
    timing.marked = [
        index
        for index, (start, end) in enumerate(timing.spans)
        if any(start <= last and first <= end for first, last in telemetry.disturbed())
    ]
    share = f", {len(timing.marked)} of {number} samples" if timing.marked else ""
    timing.flags += [flag + share for flag in telemetry.flags()]
    timing.details["telemetry"] = facts
    timing.details["timing"] = {"disturbed": timing.marked}


def allocator(device: torch.device) -> dict[str, str | None]:
    """Which allocator the device's memory comes from, and how it is configured; None: as shipped.

    On a CPU a preloaded library takes malloc's place.
    """
    if device.type == "cuda":
        settings = (os.environ.get(name) for name in VARIABLES)
        return {
            "name": cuda.get_allocator_backend(),
            "configuration": next((value for value in settings if value), None),
        }
    return {"name": "malloc", "configuration": os.environ.get("LD_PRELOAD") or None}
