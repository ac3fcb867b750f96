"""The functions of the Python interface, as ``from workbench import predict`` finds them.

Each is a thin call of what the command of the same purpose calls. Whatever is heavy (torch,
pandas, plotly) is imported by the function that needs it, when it is called.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from workbench.probe.predicting.limit import Limit
    from workbench.report import ReportFiles
    from workbench.store import Store
    from workbench.sweep.order import Summary
    from workbench.vocabulary.cell import Cell
    from workbench.vocabulary.fields import Layers
    from workbench.vocabulary.pictures import Pictures
    from workbench.vocabulary.protocol import Protocol
    from workbench.vocabulary.record import Record
    from workbench.vocabulary.sweep import Sweep

PREDICTED_ON = "h100-80gb"
"""The device entry of a prediction that names none."""
PATH = (str, os.PathLike)
NONE = type(None)


def _require(name: str, value: object, *kinds: type) -> None:
    """Raise RequestError, with the types that are right, for an argument of another."""
    if not isinstance(value, kinds):
        words = ["None" if kind is NONE else kind.__name__ for kind in kinds]
        right = " or ".join(words)
        raise RequestError(f"{name} of type {type(value).__name__}: {right} is right")


def predict(
    cell: "Cell",
    device: str = PREDICTED_ON,
    *,
    calibration: str | None = None,
    pictures: "Pictures | None" = None,
    emulate: "Layers | None" = None,
) -> "Record":
    """Predict the FLOPs, peak memory and seconds of one cell on a device that need not be here.

    ``device`` is a device entry (``workbench list devices``) or a YAML file of one.
    ``calibration`` is a file of ``workbench calibrate`` or ``"none"``; without it the one that
    comes with the workbench is used, if there is one. ``pictures`` are real files for a cell of
    scope ``lvlm``. With ``emulate`` (a number of layers, or ``"all"``) the memory is that of one
    process that emulates a ZeRO-3 rank.

    The record's ``metrics`` are plain numbers in base units (FLOP, bytes, seconds), None where
    not available, for a reason among its ``flags``. Its ``status`` is ``ok``; ``oom`` where the
    cell does not fit the device, with all metrics; ``unsupported`` where its kernel cannot serve
    it. Raises RequestError for a name or value that is wrong.
    """
    from workbench.probe.predicting.predict import predict as predict_cell
    from workbench.vocabulary.cell import Cell
    from workbench.vocabulary.pictures import Pictures

    _require("cell", cell, Cell)
    _require("device", device, *PATH)
    _require("calibration", calibration, *PATH, NONE)
    _require("pictures", pictures, Pictures, NONE)
    return predict_cell(cell, device, calibration, pictures, emulate)


def measure(
    cell: "Cell",
    device: str = "auto",
    *,
    protocol: "Protocol | None" = None,
    pictures: "Pictures | None" = None,
    trace: str | Path | None = None,
) -> "Record":
    """Measure one cell on this machine, in a process of its own, or in one for each rank.

    ``device`` is ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: CUDA where there is one.
    ``protocol`` says how long and how precisely (``Protocol(max_seconds=10)``). ``trace`` is a
    folder for a profiler trace of one iteration.

    The record is as ``predict`` gives it, with every sample in seconds (``record.samples``), and
    with the statuses ``killed``, ``timeout`` and ``error`` besides; ``oom`` is a result, too.
    Raises RequestError for what cannot be asked of this machine, Failure where no worker starts.
    """
    from workbench.probe.machine.launch import check_start, launched
    from workbench.probe.workers.client import Client
    from workbench.probe.workers.folders import check_folder
    from workbench.vocabulary.cell import Cell
    from workbench.vocabulary.pictures import Pictures
    from workbench.vocabulary.protocol import Protocol
    from workbench.vocabulary.sweep import make_point

    _require("cell", cell, Cell)
    _require("device", device, str)
    _require("protocol", protocol, Protocol, NONE)
    _require("pictures", pictures, Pictures, NONE)
    _require("trace", trace, *PATH, NONE)
    point = make_point(
        cell=cell,
        source="measured",
        device=device,
        protocol=(protocol or Protocol()).model_dump(),
        pictures=pictures,
    )
    if launched() is not None:
        raise RequestError("measure: a launcher started this process; use 'workbench measure'")
    if trace is not None and point.through_launcher:
        raise RequestError(f"trace {str(trace)!r}: works with one process; leave it out")
    if trace is not None:
        check_folder(Path(trace), "trace")
    if point.through_launcher:
        check_start(cell, device)
    with Client() as client:
        client.trace = None if trace is None else Path(trace)
        return client.run(point)


def limit(
    cell: "Cell",
    device: str | None = None,
    *,
    measured: bool = False,
    protocol: "Protocol | None" = None,
    emulate: "Layers | None" = None,
) -> "Limit":
    """The largest number of visual tokens that fits a device, as a bracket no wider than 1 %.

    The cell's own ``num_visual`` is not read. Predicted for a device entry, ``h100-80gb`` by
    default; with ``measured`` found by trials in fresh processes on ``cpu`` or ``cuda:N`` of this
    machine, ``auto`` by default, under ``protocol``. ``emulate`` as in ``predict``.

    ``max_visual`` fits and ``fails_at`` does not: None where nothing fits, or where nothing up to
    the largest |V| of a cell fails. ``capacity_bytes`` is what the cell may allocate, and
    ``stopped_by`` the kind of memory that took most of it. Raises RequestError for what cannot be
    asked, Unsupported where the kernel cannot serve the cell, and Failure where a trial ended
    neither in success nor out of memory.
    """
    from workbench.vocabulary.cell import Cell
    from workbench.vocabulary.protocol import Protocol, make_protocol

    _require("cell", cell, Cell)
    _require("device", device, *PATH, NONE)
    _require("protocol", protocol, Protocol, NONE)
    if measured:
        from workbench.probe.workers.measured_limit import measured_limit

        fields = (protocol or Protocol()).model_dump()
        if emulate is not None:
            fields["emulate"] = emulate
        return measured_limit(cell, device or "auto", make_protocol(**fields))
    if protocol is not None:
        raise RequestError("protocol: says how to measure; give measured=True as well")
    from workbench.probe.predicting.limit import predicted_limit

    return predicted_limit(cell, device or PREDICTED_ON, emulate)


def run_sweep(
    sweep: "Sweep | str | Path",
    store: str | Path = "workbench.db",
    *,
    new_run: bool = False,
    workers: int | None = None,
    calibrations: Sequence[str] = (),
    trace: str | Path | None = None,
    max_minutes: float | None = None,
) -> "Summary":
    """Measure and predict every cell of a sweep that the store does not hold yet.

    ``sweep`` is a Sweep, or the file of a probe (``.py`` with ``sweep()``, or ``.yaml``). Each
    record is on the disk as soon as it is there, so a second call goes on where the first stopped;
    ``new_run`` starts another run. ``workers`` are processes, one a GPU by default;
    ``calibrations`` files of ``workbench calibrate``, one for each device; no cell is begun that
    would end after ``max_minutes``, without which the sweep's own hold. Progress is written to
    standard error.

    The summary counts the cells by status. Raises RequestError for a wrong name or value before
    anything is run, StoreError where the file cannot be written. An interrupt ends the cells in
    flight, and the summary says so (``interrupted``).
    """
    from workbench.probe.workers.folders import check_folder
    from workbench.sweep.plan import load_probe
    from workbench.sweep.run import run_sweep as run
    from workbench.vocabulary.calibration import Choice
    from workbench.vocabulary.sweep import Sweep

    _require("sweep", sweep, Sweep, *PATH)
    _require("store", store, *PATH)
    _require("workers", workers, int, NONE)
    _require("max_minutes", max_minutes, int, float, NONE)
    _require("trace", trace, *PATH, NONE)
    if isinstance(calibrations, PATH):
        raise RequestError(f"calibrations {str(calibrations)!r}: a list of files is right")
    if trace is not None:
        check_folder(Path(trace), "trace")
    return run(
        sweep if isinstance(sweep, Sweep) else load_probe(Path(sweep)),
        Path(store),
        new_run,
        workers=workers,
        calibrations=Choice.of(calibrations) if calibrations else None,
        trace=None if trace is None else Path(trace),
        max_minutes=max_minutes,
    )


def open_store(path: str | Path, mode: Literal["r", "w"] = "r") -> "Store":
    """Open a store: a file that ``run_sweep`` or ``workbench sweep`` wrote. No torch.

    ``store.frame()`` is a pandas frame with a row a record: the cell's fields, every metric in
    base units, status and flags. ``store.records()`` gives the records, ``store.runs()`` the runs.
    Mode ``w`` creates the file if need be, to add records. Close it, or use it in a ``with``.

    Raises RequestError, one line, for a path that is missing, a folder, no store, of a newer
    version or damaged; StoreError where it cannot be written.
    """
    from workbench.store import Store

    _require("path", path, *PATH)
    return Store.open(path, mode)


def plot(
    data: "Store | pd.DataFrame | str | Path",
    metrics: str | Sequence[str] = ("flops", "peak_bytes", "time_s"),
    *,
    log: bool = True,
    dark: bool = False,
) -> "go.Figure":
    """Draw metrics over |V|: a panel a metric, a line a system, with fitted curves. No torch.

    ``data`` is a store, its path, or rows of ``store.frame()``; of cells that several runs hold
    the newest records are drawn. It has to be of one model, scope and pass under equal conditions:
    keep some rows (``frame[frame["scope"] == "layer"]``) where it holds more. A store's own
    figures have the device's capacity in the panel of ``peak_bytes``.

    Measured and predicted lines differ in their strokes, and cells that failed stand above the
    panels. Raises RequestError for a metric that does not exist, and for data of several subjects,
    which it names, or of none.
    """
    import pandas as pd

    from workbench.report.over_visual import figure_over_visual
    from workbench.store import Store

    _require("metrics", metrics, str, Sequence)
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    if isinstance(data, pd.DataFrame):
        return figure_over_visual(data, (), names, log, dark)
    if isinstance(data, (str, Path)):
        with open_store(data) as store:
            return plot(store, names, log=log, dark=dark)
    if not isinstance(data, Store):
        kind = type(data).__name__
        raise RequestError(
            f"data of type {kind}: a store, its path or rows of its frame are right"
        )
    from workbench.telling.view import CAPACITIES

    frame = data.frame(details=CAPACITIES)
    return figure_over_visual(frame, data.runs(), names, log, dark)


def write_report(
    store: str | Path,
    folder: str | Path,
    *,
    question: str | None = None,
    against: str | Path | None = None,
    static_images: bool = True,
) -> "ReportFiles":
    """Write a store as one HTML page, Markdown and PDF, with its pictures and data. No torch.

    ``question`` is one of ``workbench.report.QUESTIONS``, D-Attn against S-Attn by default;
    ``against`` the earlier store of a regression. Without ``static_images`` there are no picture
    files and no PDF, which takes a tenth of the time.

    Gives the paths of what was written (``html``, ``markdown``, ``pdf``, …) and ``notes`` on what
    could not be. Raises Failure where the store has nothing to report, RequestError for a store
    that cannot be read or a folder that cannot be made.
    """
    from workbench.report import DEFAULT_QUESTION
    from workbench.report import write_report as write

    _require("store", store, *PATH)
    _require("folder", folder, *PATH)
    return write(
        store,
        folder,
        static_images=static_images,
        question=question or DEFAULT_QUESTION,
        against=against,
    )
