"""``sweep``: a probe or a YAML file into a store."""

import shlex
import sys
from itertools import islice
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.commands import show
from workbench.commands.cells import AsJson, Calibrations
from workbench.commands.completion import completes
from workbench.commands.faults import with_names, wrong_names, wrong_parts
from workbench.vocabulary.errors import Faults, RequestError, WrongField, unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workbench.sweep.order import DryRun, Engine, Summary
    from workbench.vocabulary.sweep import Grid, Sweep

OUT_OF_TIME = 3
"""The exit code where ``--max-minutes`` left cells for the next call."""
DEFAULT_STORE = Path("workbench.db")
ENGINES = ("local", "slurm")
SOURCES = ("predicted", "measured")
YAML = (".yaml", ".yml")
MOST_LOOKED_AT = 200
"""Combinations of a faulty grid whose names and systems are looked at: to look takes time."""


def sweep(
    context: typer.Context,
    probe: Annotated[Path, typer.Argument(metavar="PROBE.py|SPEC.yaml", help="What to sweep.")],
    store: Annotated[Path, typer.Option(help="The file that keeps the results.")] = DEFAULT_STORE,
    new_run: Annotated[
        bool, typer.Option("--new-run", help="Do not continue the newest run.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would run, and how long.")
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            help=f"Where it runs: {' or '.join(ENGINES)}.", autocompletion=completes(also=ENGINES)
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            help="local: worker processes; slurm: jobs at once.",
            show_default="local: one a GPU, one on a CPU; slurm: what the partition has room for",
        ),
    ] = None,
    partition: Annotated[
        str | None, typer.Option(help="slurm: the partition.", show_default="the cluster's")
    ] = None,
    time: Annotated[str, typer.Option(help="slurm: the time limit of a job.")] = "1:00:00",
    gpus_per_task: Annotated[
        int | None,
        typer.Option(help="slurm: GPUs of a job.", show_default="1, or none on a CPU"),
    ] = None,
    gpu_type: Annotated[
        str | None,
        typer.Option(help="slurm: their kind, where the partition has several, as h100."),
    ] = None,
    cpus_per_task: Annotated[int | None, typer.Option(help="slurm: cores of a job.")] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="slurm: any other option of sbatch."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="slurm: a shared folder for the jobs.", show_default="beside the store"),
    ] = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="slurm: the nodes do see the folder.")
    ] = False,
    calibration: Calibrations = None,
    trace: Annotated[
        Path | None, typer.Option(help="Folder for a torch-profiler trace of each measured cell.")
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(
            help="Begin no cell that would end after so many minutes; exit 3 where some are left.",
            show_default="the sweep's own",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="Only its cells of one source: predicted or measured.",
            autocompletion=completes(also=SOURCES),
        ),
    ] = None,
    json_: AsJson = False,
) -> None:
    """Measure and predict every cell of a probe; a second call goes on where the first stopped."""
    from workbench.probe.workers.folders import check_folder
    from workbench.vocabulary.calibration import Choice

    faults = Faults()
    for kind, word, words in (("engine", engine, ENGINES), ("source", source, SOURCES)):
        if word is not None and word not in words:
            faults.add(str(unknown_name(kind, word, words)))
    if max_minutes is not None and not max_minutes > 0:
        faults.add(f"max_minutes {max_minutes:g}: more than 0 are needed")
    with faults:
        config = _read(probe)
    if faults and probe.suffix.lower() in YAML:
        with faults:
            faults.add(*_wrong_in(probe, faults.lines))
    with faults:
        choice = Choice.of(calibration) if calibration else None
    if trace is not None and not dry_run:
        with faults:
            check_folder(trace, "trace")
    of_jobs = {
        "partition": partition,
        "gpus-per-task": gpus_per_task,
        "gpu-type": gpu_type,
        "cpus-per-task": cpus_per_task,
        "sbatch": sbatch,
        "folder": folder,
        "shared": shared or None,
    }
    scheduler: Engine
    with faults:
        if engine == "slurm":
            with faults:
                of_local = {"max_minutes": max_minutes, "source": source}
                _refuse(of_local, "is for --engine local")
            from workbench.sweep.cluster_run import Slurm
            from workbench.sweep.engines.slurm_check import Request, pairs
            from workbench.sweep.engines.slurm_cluster import minutes

            more: dict[str, str] = {}
            with faults:
                more = pairs(sbatch or [])
            request = Request(
                minutes(time),
                partition,
                gpus_per_task,
                gpu_type,
                cpus_per_task,
                workers,
                more,
                shared,
            )
            scheduler = Slurm(request, folder)
        else:
            from workbench.sweep.run import Local

            _refuse(of_jobs, "is for --engine slurm")
            scheduler = Local(workers, max_minutes, source)  # type: ignore[arg-type]
    faults.raise_all()
    from workbench.sweep.order import Order

    order = Order(config, store, new_run, choice, trace)
    try:
        if dry_run:
            _show_forecast(scheduler.forecast(order), json_)
            return
        summary = scheduler.run(order)
    except RequestError as error:
        cells = (p.cell.document() for grid in config.grids for p in grid.heads())
        places = dict.fromkeys((grid.source, grid.device) for grid in config.grids)
        raise with_names(error, cells, places) from None
    if json_:
        show.emit(summary.document())
    _say_how_it_ended(summary, _again(context))
    if summary.interrupted:
        raise SystemExit(130)  # What there is to say is said.
    if summary.num_failed:
        raise typer.Exit(1)
    if summary.unbegun:
        raise typer.Exit(OUT_OF_TIME)


def _refuse(options: "Mapping[str, object]", reason: str) -> None:
    """Raise RequestError for every option that was given."""
    raised = [f"{name} {value}: {reason}" for name, value in options.items() if value is not None]
    if raised:
        raise RequestError(*raised)


def _wrong_in(probe: Path, faults: "Sequence[str]") -> list[str]:
    """What else is wrong with the cells of a faulty YAML sweep: their names, and what they ask."""
    from workbench.inputs.sweep_file import right_grids
    from workbench.vocabulary.sweep import combinations

    more: list[str] = []
    for grid in right_grids(probe):
        cells, stand_ins = combinations(grid)
        first = list(islice(cells, MOST_LOOKED_AT))
        named = [{k: v for k, v in fields.items() if k not in stand_ins} for fields in first]
        more += wrong_names(named, _place(grid))
        more += wrong_parts(first, stand_ins)
    return [f"{probe}: {line}" for line in dict.fromkeys(more) if line not in "; ".join(faults)]


def _place(grid: "Grid") -> list[tuple[str, str]]:
    """Whether a grid measures, and on what; nothing where either is wrong itself."""
    try:
        return [(grid.source, grid.device)]
    except WrongField:
        return []


def _read(probe: Path) -> "Sweep":
    """The sweep of a file. On a screen a first word comes before what takes seconds to import."""
    if probe.is_file() and sys.stderr.isatty():
        show.note(f"reading {probe}")
    if probe.suffix.lower() in YAML:
        from workbench.inputs.sweep_file import load_sweep

        sweep = load_sweep(probe)
    else:
        from workbench.sweep.plan import load_probe

        sweep = load_probe(probe)
    if sys.stderr.isatty():  # Elsewhere a refusal stays the one line.
        cells = sum(prod(map(len, grid.axes())) for grid in sweep.grids)
        show.note(f"sweep {sweep.name}: {cells:,} cells; checking names, starting workers")
    return sweep


def _again(context: typer.Context) -> str:
    """The command that goes on where this one stopped: with the same options, to be pasted."""
    words = [show.program(), "sweep"]
    for option in context.command.params:
        name = str(option.name)
        source = context.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE" or name in ("new_run", "json_"):
            continue
        value = context.params[name]
        flag = option.opts[:1] if option.param_type_name == "option" else []
        for each in value if isinstance(value, (list, tuple)) else [value]:
            words += flag if each is True else [*flag, str(each)]
    return shlex.join(words)


def _say_how_it_ended(summary: "Summary", again: str) -> None:
    counts = ", ".join(f"{count} {status}" for status, count in summary.counts.items())
    ran = f"{summary.num_ran} ran, {summary.num_held} were there already"
    show.note(f"run {summary.run}: {summary.num_cells} cells ({ran}): {counts or 'none yet'}")
    program = show.program()
    if summary.interrupted:
        show.note(f"interrupted; what ran is stored. To go on: {again}")
        return
    if summary.unbegun:
        num_unbegun = len(summary.unbegun)
        show.note(f"the minutes are over, {num_unbegun} cells are left; to go on: {again}")
    if summary.dropped:
        show.note(
            f"{len(summary.dropped)} cells had no room in the sweep's minutes; to run them:"
            f" {again} --max-minutes 60"
        )
    if summary.num_failed:
        show.note(f"{summary.num_failed} cells did not end; to try them again: {again}")
    store = shlex.quote(str(summary.store))
    show.note(f"report:     {program} report {store} -o reports/latest")
    show.note(f"dashboard:  {program} dashboard {store}")


def _show_forecast(forecast: "DryRun", as_json: bool) -> None:
    from workbench.sweep.progress import duration

    if forecast.note:
        show.note(forecast.note)
    if as_json:
        rows = [
            {
                "cell": cell.task.point.cell.document(),
                "key": cell.task.identity[0],
                "source": cell.task.point.source,
                "device": cell.task.device_name,
                "held": cell.held,
                "estimated_s": cell.seconds,
            }
            for cell in forecast.cells
        ]
        totals = {
            "estimated_s": forecast.seconds,
            "workers": forecast.workers,
            "wall_s": forecast.wall_s,
        }
        show.emit({"cells": rows, **totals, "rate": forecast.rate})
        return
    todo = sum(not cell.held for cell in forecast.cells)
    show.say(
        f"{todo} of {len(forecast.cells)} cells would run, about {duration(forecast.wall_s)} "
        f"on {forecast.workers} worker{'s' * (forecast.workers != 1)}"
    )
    show.table(
        ("source", "device", "cell", "estimate"),
        (
            (
                cell.task.point.source,
                cell.task.device_name,
                cell.task.point.cell.title,
                "held already" if cell.held else f"{cell.seconds:.1f} s",
            )
            for cell in forecast.cells
        ),
    )
    show.say(f"An estimate: predicted FLOPs over {forecast.rate}; starting up is not in it.")
