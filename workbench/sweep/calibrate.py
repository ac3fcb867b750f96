"""``workbench calibrate``: the measured records of a device become its calibration."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np

import workbench
from workbench.calibration import Calibration, Covered, Fitted, Source, Spread
from workbench.devices import Device, entry_of
from workbench.devices import device as device_entry
from workbench.errors import Failure, RequestError
from workbench.probe.counting.allocator import allocator_of
from workbench.probe.counting.states import states
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.roofline import optimizer_bytes, works
from workbench.record import Record, Status
from workbench.store import Store
from workbench.sweep.efficiency import (
    BYTES,
    EXPOSED,
    LAUNCH,
    OPTIMIZER,
    OVERHEAD,
    Case,
    Cases,
    Fit,
    Floats,
    fit,
    held_out,
)

FEWEST = 8
"""Cells below which nothing is fitted: a fit has about five parameters."""
FOLDS = 10
CONVENTIONS = (
    "seconds of an operator = max(c, m) + exposed * min(c, m) + overhead_s, "
    "c = FLOPs / flops_per_s, m = bytes / bytes_per_s",
    "seconds of an iteration = max(sum over operators, launch_s * calls) "
    "+ optimizer bytes / bytes_per_s",
    "FLOPs of attention: allowed pairs under fused kernels, all pairs under eager and math",
    "bytes: inputs read once, outputs written once; optimizer: states and weights read and "
    "written, gradients read",
    "fitted to the logarithm of the median seconds of whole iterations (soft L1)",
)


def calibrate(
    stores: Sequence[Path], device: str | None = None, run: str | None = None
) -> Calibration:
    """Fit the measured records of one device; ``device`` names the entry where names do not tell.

    Raises RequestError for stores whose records are of several devices or machines, Failure where
    they are too few.
    """
    sources, records, left_out = _read(stores, run)
    entry = _one_device(records, device)
    mine = [record for record in records if _entry(record) in (entry, None)]
    target = device_entry(entry)
    _one_machine(mine)
    usable = []
    for record in mine:
        reason = unusable(record)
        left_out.update([reason] if reason else [])
        usable += [] if reason else [record]
    newest = {record.cell.key: record for record in usable}
    again = len(usable) - len(newest)
    left_out.update({"measured again later": again} if again else {})
    if len(newest) < FEWEST:
        raise Failure(
            f"calibrate: {len(newest)} usable records of {entry}, at least {FEWEST} are needed"
        )
    kept = list(newest.values())
    cases = Cases([_case(record, target) for record in kept])
    floor, host = floor_of(cases, target), target.peak_flops is not None
    found = fit(cases, floor, host)
    errors = cases.seconds(found.cost) / cases.measured - 1
    return Calibration(
        device=entry,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        workbench=workbench.__version__,
        conventions=CONVENTIONS,
        flops_per_s={
            name: _rate(found, name, 1 / floor[name] if name in floor else None)
            for name in cases.classes
            if name in found.cost
        },
        bytes_per_s={
            name: _rate(found, cost, target.bandwidth_bytes_per_s)
            for name, cost in (("operators", BYTES), ("optimizer", OPTIMIZER))
            if cost in found.cost
        },
        exposed=_cost(found, EXPOSED, 1.0),
        overhead_s=_cost(found, OVERHEAD),
        launch_s=_cost(found, LAUNCH),
        undetermined=found.undetermined,
        num_records=len(kept),
        left_out=dict(left_out),
        stores=sources,
        environments=_environments(kept),
        covered=_covered(kept),
        fitted=_spread(errors),
        held_out={
            name: _spread(held_out(cases, groups, floor, host))
            for name, groups in (("cells", folds(cases)), ("systems", by_system(cases)))
            if groups
        },
    )


def _read(
    stores: Sequence[Path], run: str | None
) -> tuple[tuple[Source, ...], list[Record], Counter[str]]:
    """Every measured record that ended ``ok``, where it is from, and how many did not."""
    sources: list[Source] = []
    records: list[Record] = []
    left_out: Counter[str] = Counter()
    for path in stores:
        with Store.open(path) as store:
            found = [record for record in store.records(run) if record.source == "measured"]
        ended = [record for record in found if record.status == Status.OK]
        left_out.update(f"ended {r.status}" for r in found if r.status != Status.OK)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        sources.append(Source(file=path.name, sha256=digest, num_records=len(ended)))
        records += ended
    return tuple(sources), records, left_out


def _entry(record: Record) -> str | None:
    """The device entry of a record; None where its name does not tell."""
    try:
        return entry_of(record.device)
    except RequestError:
        return None


def _one_device(records: Iterable[Record], asked: str | None) -> str:
    if asked is not None:
        return device_entry(asked).name
    names = sorted({record.device for record in records})
    if not names:
        raise Failure("calibrate: no measured record that ended ok")
    entries = sorted({entry_of(name) for name in names})
    if len(entries) > 1:
        raise RequestError(f"device: the records are of {', '.join(entries)}; choose one")
    return entries[0]


def _one_machine(records: Iterable[Record]) -> None:
    """A card is its name; a CPU is its model and its threads."""
    machines = set()
    for record in records:
        found = record.environment
        machines.add(found.gpu or f"{found.cpu} with {found.num_threads} threads")
    if len(machines) > 1:
        raise RequestError(f"run: the records are of {', '.join(sorted(machines))}; choose one")


def unusable(record: Record) -> str:
    """Why a record cannot be fitted; empty where it can."""
    cell = record.cell
    if not record.metrics.get("time_s"):
        return "no time"
    if cell.compile:
        return "compiled"
    if cell.zero or cell.world_size > 1:
        return "several processes"
    if cell.offload:
        return "offloaded"
    if any(flag.startswith("no_warmup") for flag in record.flags):
        return "no warm-up"
    return ""


def _case(record: Record, target: Device) -> Case:
    traced = trace(record.cell, allocator_of(target))
    held = states(record.cell, traced.parameters) if record.cell.optimizes else None
    seconds = float(record.metrics["time_s"] or 0)
    work = works(record.cell, traced)
    return Case(record.cell.attention, work, optimizer_bytes(held), seconds)


def floor_of(cases: Cases, target: Device) -> dict[str, float]:
    """The least seconds a FLOP and a byte: nothing is faster than the datasheet has it."""
    peaks = {(name, target.peak(word)) for name in cases.classes for word in name.split()}
    peaks.add((BYTES, target.bandwidth_bytes_per_s))
    return {name: 1 / peak for name, peak in peaks if peak}


def folds(cases: Cases) -> list[set[int]]:
    """Places of the cases that are held out together: every tenth, each once."""
    count = min(FOLDS, len(cases.cases))
    return [set(range(i, len(cases.cases), count)) for i in range(count)]


def by_system(cases: Cases) -> list[set[int]]:
    """Places of the cases of each attention system; none where there is only one."""
    groups: dict[str, set[int]] = {}
    for i, case in enumerate(cases.cases):
        groups.setdefault(case.system, set()).add(i)
    return list(groups.values()) if len(groups) > 1 else []


def _rate(found: Fit, name: str, peak: float | None) -> Fitted:
    low, high = found.interval[name]
    value = 1 / found.cost[name]
    return Fitted(
        value=value, low=1 / high, high=1 / low, num_cells=found.num_cells[name],
        efficiency=value / peak if peak else None,
    )  # fmt: skip


def _cost(found: Fit, name: str, most: float = float("inf")) -> Fitted | None:
    if name not in found.cost:
        return None
    low, high = found.interval[name]
    return Fitted(
        value=found.cost[name], low=low, high=min(high, most), num_cells=found.num_cells[name]
    )


def _spread(errors: Floats) -> Spread:
    absolute = np.abs(errors)
    return Spread(
        median=float(np.median(absolute)),
        worst=float(absolute.max()),
        bias=median(errors.tolist()),
        num_cells=len(errors),
    )


def _environments(records: Iterable[Record]) -> tuple[dict[str, str | int | None], ...]:
    """What the records were measured with, each once."""
    names = ("gpu", "driver", "cuda", "cpu", "num_threads", "torch", "transformers")
    seen = [{name: getattr(r.environment, name) for name in names} for r in records]
    return tuple({tuple(facts.items()): facts for facts in seen}.values())


def _covered(records: Sequence[Record]) -> Covered:
    cells = [record.cell for record in records]
    sizes = [cell.num_visual for cell in cells]

    def named(field: str) -> tuple[str, ...]:
        return tuple(sorted({str(getattr(cell, field)) for cell in cells}))

    return Covered(
        num_visual=(min(sizes), max(sizes)),
        models=named("model"),
        attentions=named("attention"),
        kernels=named("kernel"),
        scopes=named("scope"),
        passes=named("pass_"),
        dtypes=named("dtype"),
    )
