"""Thresholds that were measured on cards, each beside what is predicted for it.

They come with the workbench in ``thresholds.json``, which ``make reference`` makes of the
reference campaigns, so that a predicted threshold can say how far such ones are off.
"""

from functools import cache
from pathlib import Path
from statistics import median
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter

from workbench.vocabulary.cell import Cell
from workbench.vocabulary.fields import Layers

FILE = Path(__file__).with_name("thresholds.json")


class KnownThreshold(BaseModel):
    """A bracket that trials of a cell found, and the largest |V| that is predicted to fit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    """The device entry of the card."""
    cell: Cell
    """At any |V|."""
    emulate: Layers | None
    """Layers of one emulated rank that ran, as in a request."""
    max_visual: int
    fails_at: int
    predicted: int
    """What ``predicted_limit`` says of the same process: the rank that is emulated."""

    @property
    def error(self) -> float:
        """How far the prediction is off, as a share of what was measured."""
        return abs(self.predicted / self.max_visual - 1)

    @property
    def words(self) -> str:
        """'132,687 visual tokens ran, 133,999 were out of memory, of one emulated rank'."""
        rank = "" if self.emulate is None else ", of one emulated rank"
        return f"{self.max_visual:,} visual tokens ran, {self.fails_at:,} were out of memory{rank}"


class Errors(NamedTuple):
    """How far predicted thresholds of a kind of cell are from measured ones."""

    kind: str
    """'decoder train'."""
    models: tuple[str, ...]
    num: int
    median: float
    worst: float

    @property
    def words(self) -> str:
        """'measured error of thresholds of decoder train: 1.2% at the median, 4.7% at worst …'."""
        return (
            f"measured error of thresholds of {self.kind}: {self.median:.1%} at the median,"
            f" {self.worst:.1%} at worst (of {self.num}, {', '.join(self.models)})"
        )


@cache
def known_thresholds() -> tuple[KnownThreshold, ...]:
    """Every one that comes with the workbench."""
    return TypeAdapter(tuple[KnownThreshold, ...]).validate_json(FILE.read_bytes())


def threshold_of(cell: Cell, device: str) -> KnownThreshold | None:
    """The measured one of this very cell, whatever its |V|; None where there is none."""
    thresholds = (each for each in known_thresholds() if each.device == device)
    return next((each for each in thresholds if each.cell.kind == cell.kind), None)


def errors_of(cell: Cell, device: str) -> Errors | None:
    """Of cells of the same scope and pass on the same card; None where none was measured."""
    alike = [
        each
        for each in known_thresholds()
        if (each.device, each.cell.scope, each.cell.pass_) == (device, cell.scope, cell.pass_)
    ]
    if not alike:
        return None
    errors = [each.error for each in alike]
    models = tuple(sorted({each.cell.model for each in alike}))
    return Errors(f"{cell.scope} {cell.pass_}", models, len(alike), median(errors), max(errors))
