"""``jobs``: how the jobs of sweeps under Slurm are, and what they print."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.commands import show
from workbench.commands.cells import AsJson
from workbench.commands.sweeps import DEFAULT_STORE
from workbench.errors import RequestError, unknown_name

if TYPE_CHECKING:
    from workbench.sweep.engines.slurm_folder import Job


def jobs(
    store: Annotated[Path, typer.Option(help="The store of the sweep.")] = DEFAULT_STORE,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where its jobs leave their files.", show_default="beside the store"),
    ] = None,
    logs: Annotated[
        str | None, typer.Option(metavar="JOB", help="Print what this job has printed.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Jobs that have ended, too.")] = False,
    json_: AsJson = False,
) -> None:
    """List the jobs of sweeps under Slurm, or print the log of one."""
    from workbench.sweep.cluster_run import jobs_folder
    from workbench.sweep.engines import slurm
    from workbench.sweep.engines.slurm_folder import runs

    place = folder or jobs_folder(store)
    if not place.is_dir():
        raise RequestError(f"folder {str(place)!r}: no sweep has submitted jobs from there")
    found = [job for run in runs(place) for batch in run.batches for job in batch.jobs]
    if logs is not None:
        by_id = {str(job.id): job for job in found if job.id is not None}
        if logs not in by_id:
            raise unknown_name("job", logs, by_id)
        text = slurm.tail(by_id[logs])
        if json_:
            show.emit({"job": logs, "log": text})
        else:
            print(text)
        return
    listed = found if all_ else [job for job in found if not job.is_merged]
    states = slurm.States().look(listed)
    rows = [_row(job, states) for job in listed]
    if json_:
        show.emit(rows)
    elif rows:
        show.table(list(rows[0]), [tuple(map(str, row.values())) for row in rows])
    else:
        show.note("no job is under way")


def _row(job: "Job", states: dict[str, str]) -> dict[str, Any]:
    return {
        "job": job.id,
        "state": states.get(job.id or "", "UNKNOWN"),
        "done": job.num_done,
        "cells": len(job.content.points),
        "run": job.batch.folder.parent.name,
        "log": str(job.log),
    }
