"""What an engine is told and what it answers: an order in, a forecast or a summary out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from workbench.sweep.plan import Task
from workbench.sweep.schedule import wall_seconds
from workbench.vocabulary.calibration import Choice
from workbench.vocabulary.record import Status
from workbench.vocabulary.sweep import Sweep


@dataclass(frozen=True)
class Order:
    """A sweep and the store that its records go to."""

    sweep: Sweep
    store: Path
    new_run: bool = False
    """Start another run, whatever the store holds."""
    calibrations: Choice | None = None
    """These go before those that the sweep names."""
    trace: Path | None = None
    """A folder for a profiler trace of each measured cell."""


@dataclass
class Summary:
    """How a sweep ended, or how far it had come when it was interrupted."""

    sweep: str
    store: Path
    num_cells: int
    run: str | None = None
    num_held: int = 0
    """Cells that the store held when the sweep began."""
    num_ran: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    """Cells of this sweep in the store, by status."""
    interrupted: bool = False
    num_workers: int = 1
    num_left: int = 0
    """Cells that no job took to an end."""
    unbegun: list[str] = field(default_factory=list)
    """Cells that were left when the call's minutes were over; the next call goes on with them."""
    dropped: list[str] = field(default_factory=list)
    """Cells that the sweep's own minutes had no room for; the next call leaves them out too."""

    @property
    def num_failed(self) -> int:
        """Cells that did not end, so that the next sweep tries them again."""
        failed = sum(n for status, n in self.counts.items() if not Status(status).done)
        return failed + self.num_left

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "sweep": self.sweep,
            "store": str(self.store),
            "run": self.run,
            "cells": self.num_cells,
            "workers": self.num_workers,
            "held": self.num_held,
            "ran": self.num_ran,
            "counts": self.counts,
            "interrupted": self.interrupted,
            "unbegun": len(self.unbegun),
            "dropped": self.dropped,
        }


@dataclass(frozen=True)
class Forecast:
    """What a sweep would run: a task, its seconds here, and whether the store holds it already."""

    task: Task
    seconds: float
    held: bool


@dataclass(frozen=True)
class DryRun:
    """Every task of a sweep with its forecast, and how many workers would share them."""

    cells: list[Forecast]
    workers: int
    note: str | None = None
    """What else there is to know before it runs."""
    rate: str = "the rate of a plain matmul here"
    """What the FLOPs of measured cells were divided by."""

    @property
    def seconds(self) -> float:
        """Seconds of all that is left to run, one task after another."""
        return sum(cell.seconds for cell in self.cells if not cell.held)

    @property
    def wall_s(self) -> float:
        """Until the last worker would end."""
        seconds = (cell.seconds for cell in self.cells if not cell.held)
        return wall_seconds(seconds, self.workers)


class Engine(Protocol):
    """Where the cells of a sweep run: workers of this machine, or jobs of a cluster."""

    def forecast(self, order: Order) -> DryRun:
        """What ``run`` would do, and how long it would take. Nothing is written."""

    def run(self, order: Order) -> Summary:
        """Run what the order's store lacks of its sweep.

        Raises RequestError before anything is run, and Failure. An interrupt ends it early, and
        the summary says so.
        """
