"""``predict`` and ``measure``: one cell."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.commands import process, show
from workbench.commands.checks import layers_of
from workbench.commands.completion import completes
from workbench.commands.numbers import whole_option
from workbench.commands.options import takes_cell_or_pictures
from workbench.interface import PREDICTED_ON
from workbench.vocabulary.errors import Faults, RequestError

if TYPE_CHECKING:
    from workbench.probe.machine.launch import Launch
    from workbench.vocabulary.cell import Cell
    from workbench.vocabulary.fields import Layers
    from workbench.vocabulary.pictures import Pictures
    from workbench.vocabulary.record import Record
    from workbench.vocabulary.sweep import Point

TIMEOUT_S = 900.0
PLACES = ("auto", "cpu", "cuda")
"""Where a measurement runs, but for one of several GPUs."""
Calibration = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|none",
        help="What 'workbench calibrate' wrote for the device; none: datasheet peaks.",
        autocompletion=completes(also=["none"]),
        show_default="the one that comes with the workbench, if any",
    ),
]
Calibrations = Annotated[
    list[str] | None,
    typer.Option(
        "--calibration",
        metavar="FILE|none",
        help="As in predict; once for each device.",
        show_default="those that come with the workbench",
    ),
]
PredictedDevice = Annotated[
    str,
    typer.Option(
        help="A device entry, or a YAML file of one.", autocompletion=completes("device")
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Emulate = Annotated[
    str | None,
    typer.Option(metavar="all|N", help="Emulate one ZeRO-3 rank: run all layers, or N of them."),
]


def defer_imports_for(cell: "Cell") -> None:
    """Let this process, which asks about shapes of one cell and ends, import less.

    Not for vision towers and models from files, which ask more of transformers.
    """
    from workbench.lvlm.light_import import defer_imports
    from workbench.lvlm.models import MODELS

    if process.is_program and cell.scope != "lvlm" and cell.model in MODELS:
        defer_imports()


@takes_cell_or_pictures
def predict(
    cell: "Cell",
    pictures: "Pictures | None",
    device: PredictedDevice = PREDICTED_ON,
    calibration: Calibration = None,
    emulate: Emulate = None,
    operators: Annotated[
        bool,
        typer.Option("--operators", help="Also by operator and by module."),
    ] = False,
    json_: AsJson = False,
) -> None:
    """Predict one cell for a device that need not be here: FLOPs, peak memory, time."""
    with show.waiting("predicting"):
        defer_imports_for(cell)
        from workbench.probe.predicting.predict import predict as predict_cell

        record = predict_cell(cell, device, calibration, pictures, layers_of(emulate))
    _finish(record, json_)
    if operators and not json_:
        for key in ("operator", "module"):
            print()
            show.work(key, record.details.get(f"{key}s", []))


@takes_cell_or_pictures
def measure(
    cell: "Cell",
    pictures: "Pictures | None",
    device: Annotated[
        str,
        typer.Option(
            help="auto (CUDA where there is one), cpu, cuda or cuda:N.",
            autocompletion=completes(also=PLACES),
        ),
    ] = "auto",
    max_seconds: Annotated[float, typer.Option(help="Stop sampling after this long.")] = 60.0,
    max_prepare: Annotated[
        float, typer.Option(help="Seconds for compiling and planning, before any sample.")
    ] = 120.0,
    graph: Annotated[
        bool | None,
        typer.Option(
            "--graph/--no-graph",
            help="Time a replayed CUDA graph of the iteration too.",
            show_default="forward and decode under 20 ms",
        ),
    ] = None,
    memory_limit: Annotated[
        int | None,
        whole_option("Bytes that the cell may allocate on the CPU.", show_default="90 % of free"),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds until a silent cell is ended.", show_default=f"{TIMEOUT_S:g} or more"
        ),
    ] = None,
    trace: Annotated[Path | None, typer.Option(help="Folder for a torch-profiler trace.")] = None,
    snapshot: Annotated[
        Path | None, typer.Option(help="Folder for PyTorch's memory_viz, CUDA only.")
    ] = None,
    ceilings: Annotated[
        bool, typer.Option("--ceilings", help="First measure what the device reaches at most.")
    ] = False,
    emulate: Emulate = None,
    json_: AsJson = False,
) -> None:
    """Measure one cell on this machine, in a process of its own, or one a rank."""
    from workbench.probe.machine.environment import resolve_device
    from workbench.probe.machine.launch import check_start, launched
    from workbench.probe.workers.client import Client
    from workbench.probe.workers.folders import check_folder
    from workbench.vocabulary.sweep import make_point

    faults = Faults()
    if trace is not None:
        with faults:
            check_folder(trace, "trace")
    if snapshot is not None:
        with faults:
            if resolve_device(device) == "cpu":
                raise RequestError(
                    f"snapshot {str(snapshot)!r}: memory_viz shows CUDA's allocator; --device cuda"
                )
            check_folder(snapshot, "snapshot")
    if timeout is None:
        timeout = max(TIMEOUT_S, 6 * max_seconds, 2 * (max_prepare + max_seconds))
    layers: Layers | None = None
    with faults:
        layers = layers_of(emulate)
    protocol = {
        "max_seconds": max_seconds,
        "max_prepare": max_prepare,
        "graph": graph,
        "memory_limit": memory_limit,
        "timeout_s": timeout,
        "emulate": layers,
    }
    with faults:
        point = make_point(
            cell=cell, source="measured", device=device, protocol=protocol, pictures=pictures
        )
    faults.raise_all()
    launch = launched()
    alone = launch is not None and launch.world_size == cell.world_size == 1
    if alone and not point.through_launcher:
        launch = None
    if launch is not None or point.through_launcher:
        for name, option in (
            ("trace", trace),
            ("snapshot", snapshot),
            ("ceilings", ceilings or None),
            ("emulate", emulate),
        ):
            if option is not None:
                raise RequestError(f"{name} {option}: works with one process; leave it out")
    if launch is not None:
        _measure_on_ranks(point, launch, json_)
        return
    if point.through_launcher:
        check_start(cell, device)
    with Client() as client:
        client.trace, client.snapshot = trace, snapshot
        if ceilings:
            place = resolve_device(device)
            client.ceilings = {cell.dtype: client.ceiling(cell.dtype, place)}
        with show.waiting("measuring"):
            record = client.run(point)
        _finish(record, json_)


def _measure_on_ranks(point: "Point", launch: "Launch", as_json: bool) -> None:
    """One of several ranks: only rank 0 speaks, and libraries never on standard output."""
    from workbench.probe.machine.environment import resolve_device
    from workbench.probe.machine.launch import check_ranks
    from workbench.probe.machine.memory_limit import host_limit

    def emit(record: "Record") -> None:
        sys.stdout.flush()
        os.dup2(answers, 1)
        show.record(record, as_json)
        sys.stdout.flush()
        os.dup2(2, 1)
        failed.append(not record.status.done)

    failed: list[bool] = []
    answers = os.dup(1)
    os.dup2(2, 1)
    check_ranks(point.cell, launch, point.device)
    from workbench.probe.ranks.ranks import measure_on_ranks

    limit = host_limit(point, resolve_device(point.device))
    measure_on_ranks(point, launch, emit, limit)
    if any(failed):
        raise typer.Exit(1)


def _finish(record: "Record", as_json: bool) -> None:
    show.record(record, as_json)
    if not record.status.done:
        show.note(f"workbench: {record.status}: {record.error}")
        raise typer.Exit(1)
