"""A training step on several ranks, measured: every rank reports, and rank 0 makes the record."""

import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

import torch
import torch.distributed as dist

from workbench.lvlm.build import build
from workbench.probe.counting.trace import trace
from workbench.probe.machine.allocator import allocator_flags, check_allocator
from workbench.probe.machine.environment import begun, resolve_device
from workbench.probe.machine.launch import Launch
from workbench.probe.machine.memory_limit import held_bytes, limited
from workbench.probe.measuring.cap import Cap
from workbench.probe.measuring.measure import utilisation_of
from workbench.probe.measuring.memory import is_out_of_memory
from workbench.probe.measuring.prepare import Preparation, prepare
from workbench.probe.measuring.timing import SLOW_S, Timing, sample, seconds_of, settle
from workbench.probe.measuring.watch import observed
from workbench.probe.predicting.facts import counts, model_facts, picture_details
from workbench.probe.ranks.alarm import Alarm
from workbench.probe.ranks.engine import (
    Rank,
    communication_share,
    join,
    own_samples,
    peak_bytes,
    profiled_flops,
)
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import Unsupported
from workbench.vocabulary.pictures import Pictures
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Record, Status
from workbench.vocabulary.sweep import Point

METRICS = {"weights_bytes": "weight_bytes", "gradients_bytes": "gradient_bytes"}
"""What a rank's states are called, to the metric of the record."""


def measure_on_ranks(
    point: Point, launch: Launch, emit: Callable[[Record], None], limit: int | None
) -> None:
    """Measure one cell together with the other ranks; rank 0 calls ``emit`` with the record.

    The device is ``auto``, ``cpu`` or ``cuda``: each rank takes the card of its local number. A
    rank that fails, or runs out of memory, ends the process of all of them, with its reason in the
    record; so does a cell that takes longer than the protocol's time-out. ``limit`` is what a rank
    may allocate on the host, in bytes. ``check_ranks`` has been asked before.
    """
    cell, pictures = point.cell, point.pictures
    place = resolve_device(point.device)
    if place != "cpu":
        place = f"cuda:{launch.local_rank}"
    check_allocator(cell, place)
    configured = [] if place == "cpu" else allocator_flags(cell)
    base = begun(cell, place)
    clock, cap = time.monotonic(), Cap(cell, place)
    try:
        traced = trace(cell, pictures=pictures)
    except Unsupported as error:
        # Every rank finds the same, before any of them waits for another.
        if launch.rank == 0:
            emit(_record(base, clock, Status.UNSUPPORTED, str(error), cap.flags))
        return

    def tell(status: Status, reason: str) -> None:
        emit(_record({**base, "metrics": counts(traced)}, clock, status, reason, cap.flags))

    join(place)
    with Alarm(launch, tell, point.protocol.timeout_s) as alarm, cap:
        try:
            with limited(None if limit is None else held_bytes() + limit):
                result = _run(cell, place, point.protocol, pictures)
        except Unsupported as error:
            alarm.ring(Status.UNSUPPORTED, str(error))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            alarm.ring(Status.OOM, str(error).strip().splitlines()[0])
    if launch.rank != 0:
        return
    quantized, model_notes = model_facts(cell, traced.params)
    metrics = {**counts(traced), **quantized, **result["metrics"]}
    missing = utilisation_of(cell, base["device"], traced, metrics)
    emit(
        Record(
            **base,
            status=Status.OK,
            metrics=metrics,
            samples=result["samples"],
            flags=[*model_notes, *configured, *cap.flags, *result["flags"], *missing],
            details=result["details"] | picture_details(cell, pictures),
            duration_s=time.monotonic() - clock,
        )
    )


def _record(
    base: dict[str, Any], clock: float, status: Status, reason: str, flags: list[str]
) -> Record:
    return Record(
        **base,
        status=status,
        error=reason,
        flags=[*flags, f"{status}: {reason}"],
        duration_s=time.monotonic() - clock,
    )


def _run(cell: Cell, place: str, protocol: Protocol, pictures: Pictures | None) -> dict[str, Any]:
    """What all ranks found, the same on each of them."""
    torch.manual_seed(0)  # Every rank makes the same weights.
    workload = build(cell, place, pictures=pictures)
    own_samples(workload, dist.get_rank())
    flops = profiled_flops(workload)
    rank = Rank(workload)
    with workload.guard():
        ready, facts = _prepared(rank, protocol)
        if ready.warm:
            timing = _samples(rank, protocol)
        else:
            timing = Timing(flags=[f"time_s: {ready.reason}"])
    timing.flags += [
        f"{METRICS.get(name, name)}: {ready.reason}"
        for name, size in facts.items()
        if size is None
    ]
    mine = {
        **facts,
        "energy_j": timing.metrics.get("energy_j"),
        "prepare_s": ready.seconds,
        "telemetry": timing.details.get("telemetry"),
        "losses": rank.losses[:3],
    }
    ranks: list[Any] = [None] * cell.world_size
    dist.all_gather_object(ranks, mine)
    spread = quantiles(timing.whole, n=4) if len(timing.whole) > 1 else None
    return {
        "metrics": {
            **{
                METRICS.get(name, name): _over(max, [each[name] for each in ranks])
                for name in facts
            },
            "communication_share": _over(median, [each["communication_share"] for each in ranks]),
            "energy_j": _over(sum, [each["energy_j"] for each in ranks]),
            "prepare_s": ready.seconds,
            "time_s": median(timing.whole) if timing.whole else None,
            "time_q1_s": spread[0] if spread else None,
            "time_q3_s": spread[2] if spread else None,
            "num_samples": len(timing.whole),
        },
        "samples": timing.samples,
        "flags": workload.context.flags
        + timing.flags
        + ([] if spread else ["time_q1_s: needs two samples", "time_q3_s: needs two samples"]),
        "details": {
            "ranks": ranks,
            "deepspeed_flops_profiler": flops,
            "prepare": {"iterations_s": ready.iterations},
        }
        | ({"forms": workload.context.forms} if workload.context.forms else {}),
    }


def _prepared(rank: Rank, protocol: Protocol) -> tuple[Preparation, dict[str, Any]]:
    """The iterations before the first warm one, and what this rank saw in them.

    All ranks go by one clock and so stop after the same iteration; what none of them came to
    within the protocol's ``max_prepare`` is None.
    """
    device = rank.workload.context.device
    states = ("weights_bytes", "gradients_bytes", "optimizer_bytes")
    peaks = ("peak_bytes",) if device.type == "cpu" else ("peak_bytes", "reserved_bytes")
    facts: dict[str, Any] = dict.fromkeys((*peaks, *states, "communication_share"))

    def hold() -> None:
        facts.update({f"{kind}_bytes": size for kind, size in rank.held().items()})

    def peak() -> None:
        facts.update(zip(peaks, peak_bytes(rank), strict=False))

    def share() -> None:
        facts["communication_share"] = communication_share(rank.step, device)

    def step() -> None:
        seconds_of(rank.step, device)

    short = protocol.precision is None and device.type == "cpu"
    ready = prepare(
        [step, hold, peak, share],
        None if short else step,
        protocol.max_prepare,
        lambda: _agreed(time.monotonic(), device, dist.ReduceOp.MAX),
    )
    return ready, facts


def _over(how: Callable[[list[Any]], Any], each: list[Any]) -> Any:
    """One value of those of all ranks; None where one of them does not say."""
    return None if None in each else how(each)


def _samples(rank: Rank, protocol: Protocol) -> Timing:
    """Seconds of whole iterations, of the slowest rank each: all ranks see the same numbers."""
    device = rank.workload.context.device

    def now() -> float:
        return _agreed(time.monotonic(), device, dist.ReduceOp.MAX)

    def run() -> dict[str, float]:
        mine = seconds_of(rank.step, device)
        return {"time_s": _agreed(mine, device, dist.ReduceOp.MAX)}

    stop_at = now() + protocol.max_seconds
    typical = run()["time_s"]
    flags = []
    settled = protocol.precision is None or typical > SLOW_S
    if not settled and not settle(run, typical, stop_at, now):
        flags.append("unsettled: warm-up windows never agreed within 2 %")
    timing = observed(device, lambda: sample(run, protocol, typical, stop_at, now))
    timing.flags += flags
    return timing


def _agreed(value: float, device: torch.device, how: Any) -> float:
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(shared, how)
    return shared.item()
