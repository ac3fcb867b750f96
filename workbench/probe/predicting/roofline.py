"""Seconds of a traced cell: a roofline operator by operator, with peaks or with calibrated rates.

An operator takes the longer of computing its FLOPs and moving its bytes; when calibrated, also the
share of the shorter that the longer does not hide, and an overhead. A host that issues operators
slower than the device runs them sets the pace of the whole iteration.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from workbench.probe.counting.states import States
from workbench.probe.counting.tallies import causal_attention
from workbench.probe.counting.trace import Trace
from workbench.probe.counting.tracker import Operator
from workbench.vocabulary.calibration import Calibration
from workbench.vocabulary.calibration_parts import kind_of
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.devices import Device

COMPUTE, MEMORY, OVERHEAD = "compute", "memory", "overhead"
HOST_BOUND = 0.9
"""Share of an iteration in which the device works, below which the host sets the pace."""
SHARPNESS = 4
"""Of the maximum of device and host: where both need as long, an iteration takes 19 % more, for
the host has not run ahead yet when it begins."""


def together(device: Any, host: Any) -> Any:
    """Seconds of an iteration whose device and host need these seconds; numbers or arrays.

    A smooth maximum, ``(device**4 + host**4) ** (1 / 4)``, that cannot overflow.
    """
    longer, shorter = np.maximum(device, host), np.minimum(device, host)
    share = np.divide(shorter, longer, out=np.zeros_like(longer * 1.0), where=longer > 0)
    return longer * (1 + share**SHARPNESS) ** (1 / SHARPNESS)


class Work(NamedTuple):
    """An operator of a cell: how often it runs, the rate that it computes at, and what it does."""

    operator: Operator
    calls: int
    rate: str | None
    """A key of ``flops_per_s``; None for an operator without FLOPs."""
    flops: float
    """Really done by a call: without pairs that a mask hides, where the kernel skips them."""


@dataclass(frozen=True)
class Rates:
    """What a device does in a second; overheads are seconds a call."""

    flops_per_s: dict[str, float]
    bytes_per_s: float
    optimizer_bytes_per_s: float
    exposed: float = 0.0
    """Share of the shorter of computing and moving bytes that the longer does not hide."""
    overhead_s: float = 0.0
    launch_s: float = 0.0
    start_s: float = 0.0
    """Seconds that an iteration costs on the host."""
    step_flops_per_s: float = math.inf
    """FLOP/s of an optimizer step's matmuls, in bfloat16."""


class Timed(NamedTuple):
    """All calls of one operator."""

    work: Work
    seconds: float
    bound: str
    """What takes most of it: compute, memory or overhead."""


@dataclass(frozen=True)
class Times:
    """Seconds of an iteration."""

    operators: list[Timed]
    optimizer: float
    host: float
    """What the host needs to begin and to issue the operators."""

    @property
    def device(self) -> float:
        """What the device needs for all operators."""
        return sum(timed.seconds for timed in self.operators)

    @property
    def total(self) -> float:
        """The host runs ahead of the device: the slower of the two sets the pace."""
        return self.optimizer + float(together(self.device, self.host))

    @property
    def host_bound(self) -> bool:
        """Whether the device waits for its host for a tenth of the iteration or longer."""
        return self.device < HOST_BOUND * float(together(self.device, self.host))

    def document(self) -> dict[str, float]:
        """The terms of the total, in seconds, JSON-ready."""
        return {"device_s": self.device, "host_s": self.host, "optimizer_s": self.optimizer}


def works(cell: Cell, traced: Trace) -> list[Work]:
    """Every operator of a cell that does something, with the rate that it belongs to."""
    attention = causal_attention(traced.operators)
    shares = {
        place: 1 - traced.skipped_by_place.get(place, 0) / max(1, sum(flops.values()))
        for place, flops in attention.items()
    }
    work = []
    for op, calls in traced.operators.items():
        if not op.flops and not op.bytes:
            continue  # A view, though torch does not call it one.
        share = shares[op.place] if op.attention and op.component == "decoder" else 1.0
        work.append(Work(op, calls, rate_of(op, cell), op.flops * share))
    return work


def rate_of(op: Operator, cell: Cell) -> str | None:
    """The class of an operator that computes: matmuls by dtype, attention by kernel too."""
    if not op.flops:
        return None
    if not op.attention:
        return f"matmul {cell.dtype}"
    backward = " backward" if op.name.endswith("_backward") else ""
    return f"attention {cell.kernel} {cell.dtype}{backward}"


def optimizer_bytes(rank: States | None) -> int:
    """AdamW reads and writes its states and the weights once and reads the gradients.

    None of it on the device where they are on the host. Another optimizer's bytes are its own.
    """
    if rank is not None and rank.step_bytes is not None:
        return rank.step_bytes
    return (
        0 if rank is None or rank.on_host else 2 * rank.optimizer + 2 * rank.weights + rank.reduced
    )


def step_seconds(rates: Rates, rank: States | None) -> float:
    """Seconds of an optimizer step: of another than AdamW at the rates of other operators."""
    if rank is None or rank.step_bytes is None:
        return optimizer_bytes(rank) / rates.optimizer_bytes_per_s
    computing = rank.step_flops / rates.step_flops_per_s if rank.step_flops else 0.0
    return rank.step_bytes / rates.bytes_per_s + computing


def predict_times(work: Iterable[Work], rates: Rates, rank: States | None) -> Times:
    """Seconds by operator; ``rank`` has the states of a cell that ends in an optimizer step."""
    timed, calls = [], 0
    for one in work:
        computing = one.flops / rates.flops_per_s[one.rate] if one.rate else 0.0
        moving = one.operator.bytes / rates.bytes_per_s
        terms = {COMPUTE: computing, MEMORY: moving, OVERHEAD: rates.overhead_s}
        exposed = rates.exposed * min(computing, moving)
        seconds = one.calls * (max(computing, moving) + exposed + rates.overhead_s)
        timed.append(Timed(one, seconds, max(terms, key=lambda name: terms[name])))
        calls += one.calls
    return Times(
        timed,
        step_seconds(rates, rank),
        rates.start_s + rates.launch_s * calls,
    )


def rates(
    cell: Cell, work: Sequence[Work], target: Device, calibration: Calibration | None
) -> tuple[Rates | None, list[str]]:
    """What the device does in a second for these operators, and the flags that a time needs.

    Without a calibration these are the datasheet's peaks. None where a figure is missing; the flag
    ``time_s`` then says which.
    """
    classes = sorted({one.rate for one in work if one.rate})
    if calibration is None:
        peak, bandwidth = target.peak(cell.dtype), target.bandwidth_bytes_per_s
        if peak is None or bandwidth is None:
            return None, [f"time_s: {target.sources['peak_flops']}"]
        flag = "uncalibrated: time_s is the roofline's lower bound, not a measured efficiency"
        speed = Rates(dict.fromkeys(classes, peak), bandwidth, bandwidth)
        return replace(speed, step_flops_per_s=target.peak("bfloat16") or peak), [flag]
    flags = []
    if calibration.carried_from is not None:
        flags.append(
            f"carried: nothing was measured on {target.name}; the rates are those of "
            f"{calibration.carried_from}, bytes/s by the ratio of the bandwidths"
        )
    beyond = calibration.covered.beyond(cell)
    if cell.compile:
        beyond.append("compiled modules were not measured")
    if cell.world_size > 1:
        beyond.append("communication was not measured")
    flags += [f"beyond_calibration: {'; '.join(beyond)}"] if beyond else []
    computing: dict[str, float] = {}
    for name in classes:
        value, stand_in = _compute_rate(name, cell, target, calibration)
        if value is None:
            return None, [f"time_s: the calibration of {target.name} has no rate for {name}"]
        computing[name] = value
        flags += [f"stand_in: {name} is not calibrated; {stand_in}"] if stand_in else []
    bandwidth = _bandwidth("operators", target, calibration)
    if bandwidth is None:
        bandwidth = math.inf
        flags.append("stand_in: bytes moved decided no measured cell; they take no time")
    start = calibration.start_of(cell)
    speed = Rates(
        computing,
        bandwidth,
        _bandwidth("optimizer", target, calibration) or bandwidth,
        *(0.0 if cost is None else cost.value for cost in (*calibration.overheads, start)),
    )
    speed = replace(speed, step_flops_per_s=_step_rate(cell, target, calibration))
    times = predict_times(work, speed, None)
    error = calibration.error_of(kind_of(cell, times.host_bound))
    if times.host_bound:
        busy = times.device / times.total
        flags.insert(
            0,
            f"host_bound: by the prediction the device works {busy:.0%} of the time; "
            "such seconds tell of the host that issues operators",
        )
    return speed, [f"calibrated: {calibration.sentence}; {error}", *flags]


def _step_rate(cell: Cell, target: Device, calibration: Calibration) -> float:
    """FLOP/s of the matmuls of an optimizer step, which are in bfloat16."""
    fitted = calibration.flops_per_s.get("matmul bfloat16")
    rate = target.peak("bfloat16") if fitted is None else fitted.value
    return rate or target.peak(cell.dtype) or math.inf


def _compute_rate(
    name: str, cell: Cell, target: Device, calibration: Calibration
) -> tuple[float | None, str]:
    """The rate of a class and, where it is another's, a clause that says whose."""
    fitted = calibration.flops_per_s
    if name in fitted:
        return fitted[name].value, ""
    for other in stand_ins(name):
        if other in fitted:
            return fitted[other].value, f"the rate of {other} stands in"
    return target.peak(cell.dtype), "the datasheet's peak stands in"


def stand_ins(name: str) -> list[str]:
    """Classes whose rate comes nearest to that of a class which has none, the nearest first.

    Another fused kernel's attention is nearer than a matmul: ``sdpa`` runs flash attention on a
    card, and the others do the same work in the same order. ``math`` is nearest to ``eager``.
    """
    kind, *words = name.split()
    if kind != "attention":
        return []
    kernel, dtype, *backward = words
    like = "eager" if kernel == "math" else "flash"
    nearest = [f"attention {kernel} {dtype}"] if backward else []
    if kernel != "eager":
        nearest += [" ".join(["attention", like, dtype, *backward]), f"attention {like} {dtype}"]
    others = dict.fromkeys([*nearest, f"matmul {dtype}"])
    return [other for other in others if other != name]


def _bandwidth(name: str, target: Device, calibration: Calibration) -> float | None:
    fitted = calibration.bytes_per_s.get(name)
    return target.bandwidth_bytes_per_s if fitted is None else fitted.value


def seconds_by_component(times: Times) -> dict[str, float]:
    """Seconds of the operators of each component."""
    seconds: dict[str, float] = {}
    for timed in times.operators:
        component = timed.work.operator.component
        seconds[component] = seconds.get(component, 0.0) + timed.seconds
    return seconds


Row = dict[str, Any]


def table(
    work: Iterable[Work], times: Times | None, key: Callable[[Operator], dict[str, str]]
) -> list[Row]:
    """Calls, FLOPs and bytes (exact), seconds and bound, grouped by ``key``, longest first.

    Seconds and bound are None without ``times``. FLOPs are dense.
    """
    seconds = {} if times is None else {id(t.work): t for t in times.operators}
    rows: dict[tuple[str, ...], Row] = {}
    bounds: dict[tuple[str, ...], Counter[str]] = {}
    for one in work:
        identity = key(one.operator)
        group = tuple(identity.values())
        row = rows.setdefault(
            group, {**identity, "calls": 0, "flops": 0, "bytes": 0, "time_s": None, "bound": None}
        )
        row["calls"] += one.calls
        row["flops"] += one.calls * one.operator.flops
        row["bytes"] += one.calls * one.operator.bytes
        timed = seconds.get(id(one))
        if timed is not None:
            row["time_s"] = (row["time_s"] or 0.0) + timed.seconds
            bounds.setdefault(group, Counter())[timed.bound] += timed.seconds  # type: ignore[assignment]
            row["bound"] = bounds[group].most_common(1)[0][0]
    return sorted(
        rows.values(), key=lambda row: (-(row["time_s"] or 0.0), -row["flops"], -row["bytes"])
    )
