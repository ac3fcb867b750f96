"""Which points a sweep has to run: its file read, devices resolved, duplicates gone."""

import runpy
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from workbench.collector import without_collector
from workbench.inputs.files import require_file
from workbench.inputs.sweep_file import load_sweep
from workbench.probe.machine.allocator import check_allocator
from workbench.probe.machine.environment import cuda_index, device_name, resolve_device
from workbench.probe.machine.launch import check_here, check_together
from workbench.vocabulary.calibration import NONE, Choice, calibration_for
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.devices import DEVICES
from workbench.vocabulary.devices import device as device_entry
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.sweep import Point, Sweep

CellId = tuple[str, str, str]
"""A cell's key, the source and the record's device: what a store holds once a run."""


@dataclass(frozen=True)
class Task:
    """A point and where it runs."""

    point: Point
    device: str
    """The word for the worker: ``cpu``, ``cuda``, ``cuda:N``, or a device entry."""
    device_name: str
    """The record's device: the driver's name of the card, ``cpu``, or the entry's name."""
    key: str = field(default="", compare=False, repr=False)
    """The cell's key, where it is at hand: of many cells of a kind it is made at once."""

    @cached_property
    def identity(self) -> CellId:
        """What the store tells its record by."""
        return self.key or self.point.cell.key, self.point.source, self.device_name

    @property
    def on_gpu(self) -> bool:
        """Whether it is measured on a GPU."""
        return self.point.source == "measured" and self.device != "cpu"


def load_probe(path: Path) -> Sweep:
    """The sweep of a ``.yaml`` file, or of a ``.py`` file that defines ``sweep()``.

    Raises RequestError with the file, the line or the field, and what would be right.
    """
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return load_sweep(path)
    if suffix != ".py":
        raise RequestError(f"{path}: a sweep is a .yaml file, or a .py file that defines sweep()")
    require_file(path, "sweep")
    # Probes may build on their neighbours, as they can when Python runs them.
    sys.path.insert(0, str(path.parent))
    try:
        make = runpy.run_path(str(path), run_name="probe").get("sweep")
        sweep = make() if callable(make) else None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the probe is the user's own code
        where = _where(error, path)
        raise RequestError(*(f"{path}: {where}{what}" for what in _what(error))) from None
    finally:
        sys.path.remove(str(path.parent))
    if not callable(make):
        raise RequestError(f"{path}: defines no sweep(); a probe has 'def sweep() -> Sweep'")
    if not isinstance(sweep, Sweep):
        raise RequestError(f"{path}: sweep() returned {type(sweep).__name__}, not a Sweep")
    return sweep


def _where(error: BaseException, path: Path) -> str:
    """The deepest line of the file itself."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"line {line}: " if line else ""


def _what(error: BaseException) -> list[str]:
    if isinstance(error, RequestError):
        return [" ".join(fault.split()) for fault in error.faults]
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return [f"{type(error).__name__}: {' '.join(message.split()):.300}"]


def plan(sweep: Sweep, calibrations: Choice | None = None, here: bool = True) -> list[Task]:
    """The tasks of a sweep on this machine, each identity once, in the order of the sweep.

    ``calibrations`` go before those of the sweep. Not ``here``, a GPU's name is not known yet: its
    word in the sweep stands in for it. Raises RequestError for a device that does not exist or, if
    it has to be, is not here, and for a calibration that cannot be used.
    """
    points = chain.from_iterable(grid.points() for grid in sweep.grids)
    return _tasks(points, calibrations, here)


def heads(sweep: Sweep, calibrations: Choice | None = None, here: bool = True) -> list[Task]:
    """Of the tasks that ``plan`` finds, at least one of each set of names and options, at once.

    They are enough to check names and to choose workers, while the others are still made.
    """
    points = chain.from_iterable(grid.heads() for grid in sweep.grids)
    return _tasks(points, calibrations, here)


def _tasks(points: Iterable[Point], calibrations: Choice | None, here: bool) -> list[Task]:
    places: dict[tuple[str, str], tuple[str, str]] = {}
    keys: dict[tuple[Any, ...], Callable[[int], str]] = {}
    tasks: dict[CellId, Task] = {}
    with without_collector():
        for point in points:
            where = (point.source, point.device)
            if where not in places:
                places[where] = place(*where) if here else place_elsewhere(*where)
            kind = point.cell.kind
            if kind not in keys:
                keys[kind] = point.cell.key_at()
            task = Task(point, *places[where], key=keys[kind](point.cell.num_visual))
            if point.source == "measured":
                check_allocator(point.cell, task.device)
            _check_alike(task, tasks.setdefault(task.identity, task))
    if calibrations is None:
        return list(tasks.values())
    predicted = [task for task in tasks.values() if task.point.source == "predicted"]
    calibrations.check(task.device_name for task in predicted)
    for task in predicted:
        file = calibrations.file(task.device_name)
        if file is not None:
            point = task.point.model_copy(update={"calibration": file})
            tasks[task.identity] = replace(task, point=point)
    return list(tasks.values())


def _check_alike(task: Task, first: Task) -> None:
    """Raise RequestError where a sweep asks for one cell in ways that give different records."""
    ours, theirs = task.point.protocol.emulate, first.point.protocol.emulate
    if ours != theirs:
        raise RequestError(
            f"emulate {ours}: the sweep has the cell {task.point.cell.title} with emulate "
            f"{theirs} too, and a run keeps one record of a cell; make two sweeps"
        )


def calibration_digests(tasks: list[Task]) -> set[str]:
    """What tells the calibrations apart that the tasks name; RequestError for one of no use."""
    digests = set()
    predicted = [task for task in tasks if task.point.source == "predicted"]
    for device, setting in {(task.device_name, task.point.calibration) for task in predicted}:
        calibration = calibration_for(device, setting)
        if setting is None and calibration is None:
            continue
        digests.add(NONE if calibration is None else str(calibration.provenance["sha256"]))
    return digests


def place(source: str, device: str) -> tuple[str, str]:
    """The word for the worker and the record's device, on this machine."""
    if source == "measured":
        resolved = resolve_device(device)
        return resolved, device_name(resolved)
    if device == "auto":
        choices = ", ".join(sorted(DEVICES))
        raise RequestError(f"device 'auto': a prediction needs a device entry: {choices}")
    return device, device_entry(device).name


def place_elsewhere(source: str, device: str) -> tuple[str, str]:
    """The same on a machine of which only that is known: a GPU's word stands in for its name."""
    if source == "predicted":
        return place(source, device)
    if device != "auto":
        cuda_index(device)  # refuses any other word
    return device, device


def check_ranks(tasks: list[Task], here: bool = True) -> None:
    """Raise RequestError for a measured cell under deepspeed that its ranks could not run.

    One that is emulated is one process, whatever its ranks. ``here``: on this machine, whose
    deepspeed they need.
    """
    for task in tasks:
        point = task.point
        if point.source != "measured" or not point.cell.under_deepspeed:
            continue
        if point.protocol.emulate is not None:
            continue
        if here:
            check_here(point.cell, task.device)
        else:
            check_together(point.cell)


def kinds(tasks: list[Task]) -> list[Cell]:
    """One cell for each set of names and options, whatever its |V|: enough to check names."""
    cells: dict[tuple[Any, ...], Cell] = {}
    for task in tasks:
        cells.setdefault(task.point.cell.kind, task.point.cell)
    return list(cells.values())
