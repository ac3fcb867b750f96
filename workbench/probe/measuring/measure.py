"""A cell on its device, measured. Runs in a worker process, never in the coordinator."""

import time
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from workbench.devices import DEVICES, entry_of
from workbench.errors import RequestError, Unsupported
from workbench.lvlm.build import Workload, build
from workbench.lvlm.emulate import emulated_rank
from workbench.pictures import Pictures
from workbench.probe.counting.allocator import CARD, HOST
from workbench.probe.counting.parts import part_seconds
from workbench.probe.counting.trace import Trace
from workbench.probe.counting.trace import trace as trace_cell
from workbench.probe.machine.environment import begun, resolve_device
from workbench.probe.machine.launch import check_ranks
from workbench.probe.measuring.bare import bare
from workbench.probe.measuring.emulate import RankPlan, adapted, plan_rank
from workbench.probe.measuring.memory import Memory, is_out_of_memory, memory_pass
from workbench.probe.measuring.profile import Folders, write_snapshot, write_trace
from workbench.probe.measuring.timing import SLOW_S, Timing, iterate, settle
from workbench.probe.measuring.watch import watched
from workbench.probe.predicting.predict import cap_bytes, counts, parts_of, shown, utilisation
from workbench.probe.predicting.rates import achieved
from workbench.probe.predicting.throughput import throughput
from workbench.record import Ceiling, Record, Status
from workbench.spec import Cell, Protocol


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
    if protocol.emulate is None:
        check_ranks(cell, None, place)
    record = begun(cell, place)
    clock = time.monotonic()
    rank: RankPlan | None = None
    try:
        traced = trace_cell(cell, pictures=pictures)
        counted = counts(traced)
        if protocol.emulate is not None:
            rank = plan_rank(cell, protocol.emulate, HOST if place == "cpu" else CARD)
        with Cap(cell, place) as flags:
            folders = Folders(trace, snapshot)
            found = _run(cell, place, protocol, folders, pictures, rank)
            found["details"] |= shown(cell, pictures) | _costs(traced, found.pop("parts"))
    except Unsupported as error:
        found = {
            "status": Status.UNSUPPORTED,
            "error": str(error),
            "flags": [f"unsupported: {error}"],
        }
        counted, flags = {}, []
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()[0]
        found = {"status": Status.OOM, "error": reason, "flags": [f"oom: {reason}"]}
        flags = _cap_flags(cell)
    metrics = {**counted, **found.pop("metrics", {})}
    if found["status"] == Status.OK:
        found["flags"] += utilisation_of(cell, record["device"], traced, metrics)
        if rank is not None:
            metrics, found["samples"], why = adapted(metrics, found["samples"], rank)
            found["flags"] = [*found["flags"], *why]
        metrics |= achieved(cell, metrics, ceiling)
    if rank is not None:
        flags = [*flags, rank.flag]
    return Record(
        **record,
        **{**found, "flags": [*flags, *found["flags"]]},
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
        reason, rate = str(error), None
    else:
        reason, rate = entry.sources["peak_flops"], entry.peak(cell.dtype)
    metrics.update(utilisation(traced, metrics["time_s"], rate))
    if cell.optimizes:
        metrics.update(throughput(cell, metrics["time_s"]))
    return [] if rate else [f"{metric}: {reason}" for metric in ("mfu", "mfu_causal")]


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
    stop_at = time.monotonic() + protocol.max_seconds
    with workload.guard():
        timing, memory, flags = _iterations(workload, protocol, stop_at)
        details = _files(workload, folders, flags)
        whole = memory is not None and rank is None
        parts = _parts(workload, protocol, timing, stop_at) if whole else {}
    spread = quantiles(timing.whole, n=4) if len(timing.whole) > 1 else None
    metrics: dict[str, int | float | None] = {
        **({"peak_bytes": None} if memory is None else memory.metrics()),
        **timing.metrics,
        "time_s": median(timing.whole),
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
        "parts": parts,
        "details": details | timing.details | ({} if memory is None else memory.details()),
        "flags": [*flags, *timing.flags, *workload.context.flags],
    }


def _parts(
    workload: Workload, protocol: Protocol, timing: Timing, stop_at: float
) -> dict[str, dict[str, float]]:
    """Seconds of each part in up to 3 iterations; none where there is no time, or no eager run."""
    left = stop_at - time.monotonic()
    if protocol.iterations is not None or workload.cell.compile:
        return {}
    return part_seconds(workload, 3 if 3 * median(timing.whole) < left else 1)


def _costs(traced: Trace, seconds: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The parts of a model with their parameters, FLOPs and seconds, for a record's details."""
    counted = parts_of(traced, None)
    parts = {name: {**counted.get(name, {}), **times} for name, times in seconds.items()}
    return {"parts": parts} if parts else {}


def _iterations(
    workload: Workload, protocol: Protocol, stop_at: float
) -> tuple[Timing, Memory | None, list[str]]:
    """Warm-up, a pass for memory, then the samples: nothing is tracked while the clock runs."""
    if protocol.iterations is not None:
        return bare(workload, protocol.iterations)
    if protocol.precision is None and workload.context.device.type == "cpu":
        # A fixed number of samples: the pass for memory is their warm-up.
        start = time.monotonic()
        memory = memory_pass(workload)
        typical = time.monotonic() - start
        return watched(workload, protocol, typical, stop_at), memory, memory.flags()
    first = iterate(workload)
    if time.monotonic() >= stop_at:
        cold = Timing()
        cold.add(first)
        why = f"--max-seconds {protocol.max_seconds:g} was over after the first iteration"
        cold.flags += [f"no_warmup: {why}", f"few_samples: 1, {why}", f"peak_bytes: {why}"]
        return cold, None, []
    memory = memory_pass(workload)
    flags = memory.flags()

    def run() -> dict[str, float]:
        return iterate(workload)

    typical = first["time_s"]
    if protocol.precision is not None and typical <= SLOW_S:
        typical = run()["time_s"]
        if not settle(run, typical, stop_at):
            flags.append("unsettled: warm-up windows never agreed within 2 %")
    return watched(workload, protocol, typical, stop_at), memory, flags


def _files(workload: Workload, folders: Folders, flags: list[str]) -> dict[str, Any]:
    """What one further iteration each leaves in the folders asked for, by the folder's name.

    A failure costs no measurement: it is a flag.
    """
    found: dict[str, Any] = {}
    for name, folder, write in (
        ("trace", folders.trace, write_trace),
        ("snapshot", folders.snapshot, write_snapshot),
    ):
        if folder is None:
            continue
        try:
            found[name] = write(workload, folder)
        except OSError as error:
            flags.append(f"{name}: {error}")
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            flags.append(f"{name}: its iteration ran out of memory")
    return found


def _cap_flags(cell: Cell) -> list[str]:
    if cell.memory_cap is None:
        return []
    return [f"memory_cap: {cap_bytes(cell.memory_cap):,} bytes ({cell.memory_cap}) are emulated"]


class Cap(AbstractContextManager[list[str]]):
    """A smaller card emulated on this one; on the CPU the worker limits its own address space."""

    def __init__(self, cell: Cell, place: str) -> None:
        self.flags = _cap_flags(cell)
        self.cell, self.place = cell, torch.device(place)

    def __enter__(self) -> list[str]:
        if self.cell.memory_cap is not None and self.place.type == "cuda":
            cap = cap_bytes(self.cell.memory_cap)
            card = torch.cuda.get_device_properties(self.place).total_memory
            if cap > card:
                raise RequestError(
                    f"memory_cap {self.cell.memory_cap}: {cap:,} bytes, but the card has {card:,}"
                )
            torch.cuda.set_per_process_memory_fraction(cap / card, self.place)
        return self.flags

    def __exit__(self, *_: object) -> None:
        if self.cell.memory_cap is not None and self.place.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, self.place)
