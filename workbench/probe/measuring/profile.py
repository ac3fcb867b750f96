"""One more iteration under torch's profiler: a file for its viewers, and our own summary of it."""

import time
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from workbench.lvlm.workload import Workload
from workbench.probe.counting.regions import OTHER, innermost, named
from workbench.probe.counting.trace import trace as trace_cell
from workbench.probe.counting.tracker import Operator

PREFIX = "part: "
"""Of the ranges that name a region, in the trace and in what is read from it."""
TOP = 20
ENGINE = "autograd::engine::evaluate_function: "
BACKWARD_SCOPE = 1
"""at::RecordScope::BACKWARD_FUNCTION."""


class Folders(NamedTuple):
    """Where the files of one further iteration each go; None where they are not asked for."""

    trace: Path | None = None
    snapshot: Path | None = None


def write_snapshot(workload: Workload, folder: Path) -> dict[str, Any]:
    """The CUDA allocator's history of one iteration with stacks, as PyTorch's memory_viz reads it.

    torch pickles it; nothing here ever reads it back.
    """
    name = _name(workload, "pickle")
    torch.cuda.memory._record_memory_history("all")
    try:
        workload.step()
        torch.cuda.synchronize(workload.context.device)
        torch.cuda.memory._dump_snapshot(str(folder / name))
    finally:
        torch.cuda.memory._record_memory_history(None)
    return {"file": name}


def _name(workload: Workload, suffix: str) -> str:
    return f"{workload.cell.key}.{time.time_ns() // 10**6}.{suffix}"


def write_trace(workload: Workload, folder: Path) -> dict[str, Any]:
    """Trace one iteration into ``folder``; returns its summary, as docs/schema.md describes it.

    The file's name is what torch-tb-profiler looks for: worker, milliseconds, ``.pt.trace.json``.
    """
    cuda = workload.context.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    # A compiled module runs its own graph, in which no region has a beginning or an end.
    compiled = workload.cell.compile
    regions: AbstractContextManager[None] = nullcontext() if compiled else named(workload, _range)
    with profile(activities=activities, record_shapes=True) as profiler, regions:
        start = time.perf_counter()
        workload.step()
        if cuda:
            torch.cuda.synchronize(workload.context.device)
        wall_s = time.perf_counter() - start
    name = _name(workload, "pt.trace.json")
    profiler.export_chrome_trace(str(folder / name))
    details = summary(profiler.events(), trace_cell(workload.cell, regions=True).operators, cuda)
    if compiled:
        details["parts"] = []
    return {"file": name, "clock": "cuda" if cuda else "cpu", "wall_s": wall_s, **details}


def _range(name: str) -> AbstractContextManager[object]:
    return record_function(PREFIX + name)


def summary(
    events: Iterable[Any], counted: Counter[Operator], cuda: bool
) -> dict[str, list[dict[str, Any]]]:
    """Time by region and by operator from the profiler's events; bytes and FLOPs as counted."""
    names = {operator.name for operator in counted}
    regions: dict[str, _Row] = {}
    operators: dict[str, _Row] = {}
    for event, region in _attributed(events):
        spent_us = (
            sum(kernel.duration for kernel in event.kernels) if cuda else event.self_cpu_time_total
        )
        name, is_call = _operator(event, names)
        for rows, key in ((regions, region), (operators, name)):
            row = rows.setdefault(key, _Row())
            row.time_s += spent_us / 1e6
            row.calls += is_call
    for operator, times in counted.items():
        for rows, key in ((regions, operator.region), (operators, operator.name)):
            if key in rows:
                rows[key].count(operator, times)
    return {"parts": _listed("part", regions), "operators": _listed("operator", operators, TOP)}


@dataclass
class _Row:
    """What a region or an operator took; bytes and FLOPs are None until they are counted."""

    time_s: float = 0.0
    bytes: int | None = None
    flops: int | None = None
    calls: int = 0

    def count(self, operator: Operator, times: int) -> None:
        self.bytes = (self.bytes or 0) + operator.bytes * times
        self.flops = (self.flops or 0) + operator.flops * times

    def add(self, other: "_Row") -> None:
        self.time_s += other.time_s
        self.calls += other.calls
        if other.bytes is not None and other.flops is not None:
            self.bytes = (self.bytes or 0) + other.bytes
            self.flops = (self.flops or 0) + other.flops


def _listed(kind: str, rows: dict[str, _Row], top: int | None = None) -> list[dict[str, Any]]:
    """The longest first; beyond ``top`` the rest as one row."""
    ordered = sorted(rows.items(), key=lambda item: -item[1].time_s)
    if top is not None and len(ordered) > top:
        rest = _Row()
        for _, row in ordered[top:]:
            rest.add(row)
        ordered = [*ordered[:top], (OTHER, rest)]
    return [{kind: name, **asdict(row)} for name, row in ordered]


def _operator(event: Any, names: Container[str]) -> tuple[str, bool]:
    """The operator that an event is a step of, by its name in the count, and whether it is it.

    Operators call others: the outermost that the count knows stands for them.
    """
    operator, above = event, event.cpu_parent
    while above is not None and not _is_node(above):
        if _plain(above.name) in names:
            operator = above
        above = above.cpu_parent
    name = _plain(operator.name)
    return ("autograd" if _is_node(event) else name), operator is event and not _is_node(event)


def _plain(name: str) -> str:
    return name.removeprefix("aten::")


def _is_node(event: Any) -> bool:
    return event.scope == BACKWARD_SCOPE or event.name.startswith(ENGINE)


def _attributed(events: Iterable[Any]) -> Iterator[tuple[Any, str]]:
    """Every operator's event and its region: by the range around it, else by its node's forward.

    A node and the operators of its forward share thread and number; the last of them made it.
    """
    on_cpu = [event for event in events if event.device_type == DeviceType.CPU]
    by_node: dict[tuple[int, int], str] = {}
    last: dict[int, str] = {}
    for event in sorted(on_cpu, key=lambda event: event.time_range.start):
        if event.name.startswith(PREFIX):
            continue
        ranges, node = _surroundings(event)
        if node is None or ranges:
            region = innermost(ranges)
            if event.sequence_nr >= 0:
                by_node[event.thread, event.sequence_nr] = region
        else:
            # A sum of gradients has no number of its own: it belongs to what ran before it.
            number = (node.fwd_thread, node.sequence_nr)
            region = by_node.get(number, last.get(event.thread, OTHER))
        last[event.thread] = region
        yield event, region


def _surroundings(event: Any) -> tuple[list[str], Any]:
    """The regions' ranges around an event, outermost first, and the node that autograd ran.

    Ranges outside the node are its caller's.
    """
    ranges: list[str] = []
    at = event
    while at is not None:
        if at.name.startswith(ENGINE):
            return ranges[::-1], at
        if at.name.startswith(PREFIX):
            ranges.append(at.name.removeprefix(PREFIX))
        at = at.cpu_parent
    return ranges[::-1], None
