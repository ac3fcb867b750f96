"""``workbench calibrate``: the measured records of a device become its calibration."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from workbench.probe.counting.allocator import allocator_of
from workbench.probe.counting.states import states
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.roofline import HOST_BOUND, SHARPNESS, optimizer_bytes, works
from workbench.store import Store
from workbench.sweep.calibration_fit import (
    BYTES,
    EXPOSED,
    FEWEST,
    LAUNCH,
    OPTIMIZER,
    OVERHEAD,
    START,
    Case,
    Cases,
    Fit,
    fit,
)
from workbench.sweep.held_out import by_kind, by_system, folds, held_out, others, spread_of
from workbench.version import __version__
from workbench.vocabulary.calibration import Calibration
from workbench.vocabulary.calibration_parts import (
    Covered,
    Fitted,
    Phase,
    Source,
    Way,
    kind_of,
    options_of,
    phase_of,
)
from workbench.vocabulary.devices import Device, entry_of
from workbench.vocabulary.devices import device as device_entry
from workbench.vocabulary.errors import Failure, RequestError
from workbench.vocabulary.record import Record, Status

LONG_S = 5.0
"""An iteration from here on counts without a warm-up: what only a first one does takes a second
or two."""
CONVENTIONS = (
    "seconds of an operator = max(c, m) + exposed * min(c, m) + overhead_s, "
    "c = FLOPs / flops_per_s, m = bytes / bytes_per_s",
    "device = sum over operators; host = start_s of the pass + launch_s * calls",
    f"seconds of an iteration = (device ** {SHARPNESS} + host ** {SHARPNESS}) ** (1 / {SHARPNESS})"
    " + optimizer bytes / bytes_per_s",
    "FLOPs of attention: allowed pairs where the kernel skips the others, else all pairs",
    "bytes: inputs read once, outputs written once; optimizer: states and weights read and "
    "written, gradients read",
    "fitted to the logarithm of the median seconds of whole iterations (soft L1): rates to cells "
    f"in which the device works {HOST_BOUND:.0%} of the time, host costs to the others",
)


def calibrate(
    stores: Sequence[Path],
    device: str | None = None,
    run: str | None = None,
    alone: str | None = None,
) -> Calibration:
    """Fit the measured records of one device; ``device`` names the entry where names do not tell.

    ``alone`` is a run, by its id or its sweep's name: a fit of its records says how well the
    others are predicted, beside the errors of a tenth held out at a time.

    Raises RequestError for stores whose records are of several devices or machines and for a run
    that is not there, Failure where records are too few.
    """
    sources, records, runs, left_out = _read(stores, run)
    entry = _one_device(records, device)
    mine = [record for record in records if _entry(record) in (entry, None)]
    target = device_entry(entry)
    _one_machine(mine)
    usable: dict[str, tuple[str, Record]] = {}
    again = 0
    for record, made_by in zip(records, runs, strict=True):
        if _entry(record) not in (entry, None):
            continue
        reason = unusable(record)
        left_out.update([reason] if reason else [])
        if not reason:
            again += record.cell.key in usable
            usable[record.cell.key] = made_by, record
    left_out.update({"measured again later": again} if again else {})
    if len(usable) < FEWEST:
        raise Failure(
            f"calibrate: {len(usable)} usable records of {entry}, at least {FEWEST} are needed"
        )
    fitted_records = [record for _, record in usable.values()]
    cases = Cases([_case(record, target, made_by) for made_by, record in usable.values()])
    floor, host = floor_of(cases, target), target.peak_flops is not None
    fitted = fit(cases, floor, host)
    groups: dict[Way, list[set[int]]] = {"cells": folds(cases), "systems": by_system(cases)}
    if alone is not None:
        groups["alone"] = [others(cases, alone)]
    errors = {
        way: of_way
        for way, some in groups.items()
        if (of_way := held_out(cases, some, floor, host, fitted.cost))
    }
    waiting = cases.host_bound(fitted.cost)
    kinds = [kind_of(r.cell, bool(w)) for r, w in zip(fitted_records, waiting, strict=True)]
    return Calibration(
        device=entry,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        workbench=__version__,
        conventions=CONVENTIONS,
        flops_per_s={
            name: _rate(fitted, name, 1 / floor[name] if name in floor else None)
            for name in cases.classes
            if name in fitted.cost
        },
        bytes_per_s={
            name: _rate(fitted, cost, target.bandwidth_bytes_per_s)
            for name, cost in (("operators", BYTES), ("optimizer", OPTIMIZER))
            if cost in fitted.cost
        },
        exposed=_cost(fitted, EXPOSED, 1.0),
        overhead_s=_cost(fitted, OVERHEAD),
        launch_s=_cost(fitted, LAUNCH),
        start_s={
            phase: start
            for phase in get_args(Phase)
            if (start := _cost(fitted, START + phase)) is not None
        },
        undetermined=fitted.undetermined,
        num_records=len(fitted_records),
        num_host_bound=fitted.num_host_bound,
        left_out=dict(left_out),
        stores=sources,
        environments=_environments(fitted_records),
        covered=_covered(fitted_records),
        fitted=spread_of(cases.seconds(fitted.cost) / cases.measured - 1),
        alone=alone,
        held_out={way: spread_of(list(of_way.values())) for way, of_way in errors.items()},
        held_out_by_kind={way: by_kind(of_way, kinds) for way, of_way in errors.items()},
    )


def _read(
    stores: Sequence[Path], run: str | None
) -> tuple[tuple[Source, ...], list[Record], list[str], Counter[str]]:
    """Every measured record that ended ``ok``, where and of which run it is, how many did not."""
    sources: list[Source] = []
    records: list[Record] = []
    runs: list[str] = []
    left_out: Counter[str] = Counter()
    for path in stores:
        with Store.open(path) as store:
            measured = [(name, r) for name, r in store.items(run) if r.source == "measured"]
        usable = [(name, record) for name, record in measured if record.status == Status.OK]
        left_out.update(f"ended {r.status}" for _, r in measured if r.status != Status.OK)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        sources.append(Source(file=path.name, sha256=digest, num_records=len(usable)))
        records += [record for _, record in usable]
        runs += [name for name, _ in usable]
    return tuple(sources), records, runs, left_out


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
        facts = record.environment
        machines.add(facts.gpu or f"{facts.cpu} with {facts.num_threads} threads")
    if len(machines) > 1:
        raise RequestError(f"run: the records are of {', '.join(sorted(machines))}; choose one")


def unusable(record: Record) -> str:
    """Why a record cannot be fitted; empty where it can."""
    cell = record.cell
    if not record.metrics.get("time_s"):
        return "no time"
    if cell.compile:
        return "compiled"
    if cell.optimizes and (cell.optimizer, cell.master_weights) != ("adamw", "float32"):
        return "another optimizer"
    if (cell.zero or cell.world_size > 1) and not _flagged(record, "emulated"):
        return "several processes"  # An emulated rank communicates nothing; its time is computing.
    if cell.offload:
        return "offloaded"
    if _flagged(record, "no_warmup") and (record.metrics["time_s"] or 0) < LONG_S:
        return "no warm-up"
    return ""


def _flagged(record: Record, name: str) -> bool:
    return any(flag.split(":")[0] == name for flag in record.flags)


def _case(record: Record, target: Device, run: str) -> Case:
    cell = record.cell
    traced = trace(cell, allocator_of(target))
    states_held = states(cell, traced.parameters) if cell.optimizes else None
    return Case(
        cell.attention,
        works(cell, traced),
        optimizer_bytes(states_held),
        float(record.metrics["time_s"] or 0),
        phase_of(cell),
        _flagged(record, "host_bound"),
        run,
    )


def floor_of(cases: Cases, target: Device) -> dict[str, float]:
    """The least seconds a FLOP and a byte: nothing is faster than the datasheet has it."""
    peaks = {(name, target.peak(word)) for name in cases.classes for word in name.split()}
    peaks.add((BYTES, target.bandwidth_bytes_per_s))
    return {name: 1 / peak for name, peak in peaks if peak}


def _rate(fitted: Fit, name: str, peak: float | None) -> Fitted:
    low, high = fitted.interval[name]
    value = 1 / fitted.cost[name]
    return Fitted(
        value=value,
        low=1 / high,
        high=1 / low,
        num_cells=fitted.num_cells[name],
        efficiency=value / peak if peak else None,
    )


def _cost(fitted: Fit, name: str, most: float = float("inf")) -> Fitted | None:
    if name not in fitted.cost:
        return None
    low, high = fitted.interval[name]
    return Fitted(
        value=fitted.cost[name], low=low, high=min(high, most), num_cells=fitted.num_cells[name]
    )


def _environments(records: Iterable[Record]) -> tuple[dict[str, str | int | None], ...]:
    """What the records were measured with, each once."""
    names = ("gpu", "driver", "cuda", "cpu", "num_threads", "torch", "transformers")
    environments = [{name: getattr(r.environment, name) for name in names} for r in records]
    return tuple({tuple(facts.items()): facts for facts in environments}.values())


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
        options=tuple(sorted({name for cell in cells for name in options_of(cell)})),
    )
