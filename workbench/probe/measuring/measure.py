"""A cell on its device, measured. Runs in a worker process, never in the coordinator."""

import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from workbench.lvlm.build import build
from workbench.lvlm.emulate import emulated_rank
from workbench.lvlm.workload import Workload
from workbench.probe.counting.allocator import CARD, HOST
from workbench.probe.counting.components import component_seconds
from workbench.probe.counting.trace import Trace
from workbench.probe.counting.trace import trace as trace_cell
from workbench.probe.machine.allocator import allocator_flags, check_allocator
from workbench.probe.machine.environment import begun, resolve_device
from workbench.probe.machine.launch import check_ranks
from workbench.probe.measuring.busy import busy_seconds, host_bound
from workbench.probe.measuring.cap import Cap, cap_flags
from workbench.probe.measuring.card import clear_card, on_card
from workbench.probe.measuring.emulate import adapted
from workbench.probe.measuring.graph import METRIC, check_graph, replay, wants_graph
from workbench.probe.measuring.memory import Memory, is_out_of_memory, memory_pass
from workbench.probe.measuring.prepare import prepare
from workbench.probe.measuring.profile import Folders, write_snapshot, write_trace
from workbench.probe.measuring.timing import SLOW_S, Timing, iterate, settle
from workbench.probe.measuring.trial import trial_iterations
from workbench.probe.measuring.watch import watched
from workbench.probe.predicting.emulation import RankPlan, plan_rank
from workbench.probe.predicting.facts import (
    component_details,
    counts,
    model_facts,
    picture_details,
    utilisation,
)
from workbench.probe.predicting.rates import achieved
from workbench.probe.predicting.throughput import throughput
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.devices import DEVICES, entry_of
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.pictures import Pictures
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Ceiling, Record, Status


def measure(
    cell: Cell,
    device: str,
    protocol: Protocol,
    trace: Path | None = None,
    pictures: Pictures | None = None,
    ceiling: Ceiling | None = None,
    snapshot: Path | None = None,
) -> Record:
    """Measure one cell on ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    The allocator's refusal gives status ``oom``, a kernel that cannot serve the family
    ``unsupported``. Raises RequestError for what cannot be asked; any other fault is the caller's.
    ``trace`` is a folder for a torch-profiler trace of one further iteration, ``pictures`` are
    files whose pixels go through the tower, ``ceiling`` is what this device was found to reach in
    the cell's data type, ``snapshot`` a folder for the CUDA allocator's history of one more.
    """
    place = resolve_device(device)
    check_graph(protocol, place)
    check_allocator(cell, place)
    if protocol.emulate is None:
        check_ranks(cell, None, place)
    configured = [] if place == "cpu" else allocator_flags(cell)
    record = begun(cell, place)
    clock = time.monotonic()
    rank: RankPlan | None = None
    model_notes: list[str] = []
    try:
        memory = HOST if place == "cpu" else CARD
        traced = trace_cell(cell, memory, pictures=pictures)
        quantized, model_notes = model_facts(cell, traced.params)
        exact = counts(traced) | quantized
        if protocol.emulate is not None:
            rank = plan_rank(cell, protocol.emulate, memory)
        clear_card(place)
        with on_card(place), Cap(cell, place) as flags:
            folders = Folders(trace, snapshot)
            result = _run(cell, place, protocol, folders, pictures, rank)
            result["details"] |= picture_details(cell, pictures) | _costs(
                traced, result.pop("components")
            )
    except Unsupported as error:
        result = {
            "status": Status.UNSUPPORTED,
            "error": str(error),
            "flags": [f"unsupported: {error}"],
        }
        exact, flags = {}, []
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()[0]
        result = {"status": Status.OOM, "error": reason, "flags": [f"oom: {reason}"]}
        flags = cap_flags(cell)
    metrics = {**exact, **result.pop("metrics", {})}
    if result["status"] == Status.OK:
        result["flags"] += utilisation_of(cell, record["device"], traced, metrics)
        if rank is not None:
            metrics, result["samples"], why = adapted(metrics, result["samples"], rank)
            result["flags"] = [*result["flags"], *why]
        metrics |= achieved(metrics, traced.flops_skipped, ceiling)
    flags = [*model_notes, *flags]
    if rank is not None:
        flags = [*flags, rank.flag]
    return Record(
        **record,
        **{**result, "flags": [*configured, *flags, *result["flags"]]},
        metrics=metrics,
        duration_s=time.monotonic() - clock,
    )


def utilisation_of(
    cell: Cell, name: str, traced: Trace, metrics: dict[str, int | float | None]
) -> list[str]:
    """Adds MFU against the datasheet's peak; returns the reason where there is none."""
    try:
        entry = DEVICES[entry_of(name)]
    except RequestError as error:
        reason, rate, clock, unclocked = str(error), None, None, str(error)
    else:
        reason, rate = entry.sources["peak_flops"], entry.peak(cell.dtype)
        clock, unclocked = entry.peak_clock_hz, entry.sources["peak_clock_hz"]
    metrics.update(utilisation(traced, metrics["time_s"], rate))
    if cell.optimizes:
        metrics.update(throughput(cell, metrics["time_s"]))
    untimed = metrics["time_s"] is None
    reason = "needs time_s, which is null" if untimed else reason
    missing = ["mfu", "mfu_causal"] if untimed or not rate else []
    missing += ["samples_per_s", "tokens_per_s"] if untimed and cell.optimizes else []
    flags = [f"{metric}: {reason}" for metric in missing]
    ran_at, mfu = metrics.get("sm_clock_hz"), metrics["mfu"]
    if ran_at and mfu:
        metrics["mfu_at_clock"] = mfu * clock / ran_at if clock else None
        flags += [] if clock else [f"mfu_at_clock: {unclocked}"]
    return flags


def _run(
    cell: Cell,
    place: str,
    protocol: Protocol,
    folders: Folders,
    pictures: Pictures | None,
    rank: RankPlan | None,
) -> dict[str, Any]:
    if rank is None:
        workload = build(cell, place, pictures=pictures)
    else:
        workload = emulated_rank(cell, rank.emulation, place)
    if cell.optimizes:
        workload.optimizer = workload.make_optimizer()
    if cell.compile:
        workload.module.compile()
    with workload.guard():
        timing, memory, flags = _iterations(workload, protocol)
        details = _files(workload, folders, flags)
        whole = memory is not None and rank is None
        components = _components(workload, protocol, timing) if whole and timing.whole else {}
        if place != "cpu" and timing.whole and protocol.iterations is None:
            details |= _without_the_host(workload, protocol, timing)
    spread = quantiles(timing.whole, n=4) if len(timing.whole) > 1 else None
    metrics: dict[str, int | float | None] = {
        **({"peak_bytes": None} if memory is None else memory.metrics()),
        **timing.metrics,
        "time_s": median(timing.whole) if timing.whole else None,
        "time_q1_s": spread[0] if spread else None,
        "time_q3_s": spread[2] if spread else None,
        "num_samples": len(timing.whole),
    }
    if workload.context.offload is not None:
        metrics["offload_bytes"] = workload.context.offload.most_bytes
    if spread is None:
        flags += ["time_q1_s: needs two samples", "time_q3_s: needs two samples"]
    for phase in ("forward_s", "backward_s", "optimizer_s"):
        if phase in timing.samples:
            metrics[phase] = median(timing.samples[phase])
    return {
        "status": Status.OK,
        "metrics": metrics,
        "samples": timing.samples,
        "components": components,
        "details": details
        | timing.details
        | ({"forms": workload.context.forms} if workload.context.forms else {})
        | ({} if memory is None else memory.details()),
        "flags": [*flags, *timing.flags, *workload.context.flags],
    }


def _components(
    workload: Workload, protocol: Protocol, timing: Timing
) -> dict[str, dict[str, float]]:
    """Seconds of each component in up to 3 iterations; none without time for it, or compiled."""
    seconds_left = protocol.max_seconds - sum(timing.whole)
    if protocol.iterations is not None or workload.cell.compile:
        return {}
    return component_seconds(workload, 3 if 3 * median(timing.whole) < seconds_left else 1)


def _without_the_host(workload: Workload, protocol: Protocol, timing: Timing) -> dict[str, Any]:
    """Adds what tells the card's time from the host's: its busy share, a replayed graph.

    Returns details. The graph comes last, since nothing may follow a capture that failed.
    """
    typical = median(timing.whole)
    if typical <= SLOW_S:
        busy = busy_seconds(workload)
        timing.metrics["busy_share"] = None if busy is None else min(1.0, busy / typical)
        timing.flags += ["busy_share: the profiler saw no kernel"] if busy is None else []
        timing.flags += [] if busy is None else host_bound(busy / typical)
    if not wants_graph(workload.cell, protocol, typical):
        return {}
    replayed = replay(workload)
    timing.metrics |= replayed.metrics
    timing.flags += replayed.flags
    if replayed.samples:
        timing.samples[METRIC] = replayed.samples
    return replayed.details()


def _costs(traced: Trace, seconds: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Components with their parameters, FLOPs and seconds, for a record's details."""
    counts_by_name = component_details(traced, None)
    components = {
        name: {**counts_by_name.get(name, {}), **times} for name, times in seconds.items()
    }
    return {"parts": components} if components else {}


def _iterations(workload: Workload, protocol: Protocol) -> tuple[Timing, Memory | None, list[str]]:
    """Preparation, a pass for memory in it, then warm samples; nothing is tracked on the clock."""
    if protocol.iterations is not None:
        return trial_iterations(workload, protocol.iterations)
    passes: list[Memory] = []

    def track() -> None:
        passes.append(memory_pass(workload))

    def run() -> dict[str, float]:
        return iterate(workload)

    # A fixed number of samples without a compiler: the pass for memory is their warm-up.
    on_cpu = workload.context.device.type == "cpu"
    short = protocol.precision is None and on_cpu and not workload.cell.compile
    ready = prepare(
        [track] if short else [run, track], None if short else run, protocol.max_prepare
    )
    memory = passes[0] if passes else None
    flags = [f"peak_bytes: {ready.reason}"] if memory is None else memory.flags()
    if ready.warm:
        timing = _samples(workload, protocol, ready.typical_s, flags)
    else:
        timing = Timing(flags=[f"time_s: {ready.reason}"])
    timing.metrics["prepare_s"] = ready.seconds
    timing.details["prepare"] = {"iterations_s": ready.iterations}
    return timing, memory, flags


def _samples(workload: Workload, protocol: Protocol, typical_s: float, flags: list[str]) -> Timing:
    """Warm iterations, within ``max_seconds`` from the first one on."""
    stop_at = time.monotonic() + protocol.max_seconds
    if protocol.precision is not None and typical_s <= SLOW_S:
        typical_s = iterate(workload)["time_s"]
        if not settle(lambda: iterate(workload), typical_s, stop_at):
            flags.append("unsettled: warm-up windows never agreed within 2 %")
    return watched(workload, protocol, typical_s, stop_at)


def _files(workload: Workload, folders: Folders, flags: list[str]) -> dict[str, Any]:
    """What one further iteration each leaves in the folders asked for, by the folder's name.

    A failure costs no measurement: it is a flag.
    """
    files: dict[str, Any] = {}
    for name, folder, write in (
        ("trace", folders.trace, write_trace),
        ("snapshot", folders.snapshot, write_snapshot),
    ):
        if folder is None:
            continue
        try:
            files[name] = write(workload, folder)
        except OSError as error:
            flags.append(f"{name}: {error}")
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            flags.append(f"{name}: its iteration ran out of memory")
    return files
