"""``jobs``: how the jobs of sweeps under Slurm are, and what they print."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.commands import show
from workbench.commands.cells import AsJson
from workbench.commands.sweeps import DEFAULT_STORE
from workbench.vocabulary.errors import RequestError, unknown_name

if TYPE_CHECKING:
    from workbench.sweep.engines.slurm_folder import Job
    from workbench.sweep.engines.slurm_states import State


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
    from workbench.sweep.engines.slurm_states import State, States

    place = folder or jobs_folder(store)
    if not place.is_dir():
        raise RequestError(f"folder {str(place)!r}: no sweep has submitted jobs from there")
    every = [job for run in runs(place) for batch in run.batches for job in batch.jobs]
    if logs is not None:
        by_id = {str(job.id): job for job in every if job.id is not None}
        if logs not in by_id:
            raise unknown_name("job", logs, by_id)
        text = slurm.tail(by_id[logs])
        if json_:
            show.emit({"job": logs, "log": text})
        else:
            print(text)
        return
    listed = every if all_ else [job for job in every if not job.is_merged]
    states = States().look(listed)
    rows = [_row(job, states.get(job.id or "", State())) for job in listed]
    if json_:
        show.emit(rows)
    elif rows:
        cells = (tuple("" if v is None else str(v) for v in row.values()) for row in rows)
        show.table(list(rows[0]), cells)
        _say_what_they_mean(rows)
    else:
        show.note("no job is under way")


def _row(job: "Job", state: "State") -> dict[str, Any]:
    return {
        "job": job.id,
        "state": state.word,
        "node": state.nodes or None,
        "starts": job.num_starts,
        "done": job.num_done,
        "cells": len(job.content.points),
        "merged": job.is_merged,
        "run": job.batch.folder.parent.name,
        "log": str(job.log),
    }


def _say_what_they_mean(rows: list[dict[str, Any]]) -> None:
    from workbench.sweep.engines.slurm_states import ALIVE

    counts = Counter(row["state"] for row in rows)
    each = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    num_done, cells = (sum(row[name] for row in rows) for name in ("done", "cells"))
    show.note(f"{num_done} of {cells} cells have ended; jobs: {each}")
    if any(row["state"] not in ALIVE and not row["merged"] for row in rows):
        show.note("what ended jobs left is merged by the sweep that watches them, or the next")
    first_job = next((row["job"] for row in rows if row["starts"]), None)
    if first_job is not None:
        show.note(f"what a job prints: {show.program()} jobs --logs {first_job}")
