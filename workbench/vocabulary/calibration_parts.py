"""What a calibration is made of: fitted figures with bounds, errors by kind, and what was covered.

Vocabulary: nothing here imports torch.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from workbench.vocabulary.cell import DESCRIPTIONS, Cell
from workbench.vocabulary.fields import DIGEST_PATTERN, TEXT_PATTERN

Phase = Literal["forward", "train"]
Way = Literal["alone", "cells", "systems"]
WAYS: dict[Way, str] = {
    "alone": "a fit of one run alone",
    "cells": "a tenth at a time",
    "systems": "a system at a time",
}
"""How errors of cells that a fit did not see are found, the hardest test first."""

ENOUGH = 3
"""Cells of a kind from which on the hardest test speaks for it."""

MODEL = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
Count = Annotated[int, Field(ge=0, strict=True)]
Seconds = Annotated[float, Field(ge=0)]
MOST_ERROR = 1e6
Error = Annotated[float, Field(ge=0, le=MOST_ERROR)]
"""A relative one."""

Text = Annotated[str, Field(min_length=1, max_length=300, pattern=TEXT_PATTERN)]
"""One line that a terminal can be shown."""

FEWEST_FLOPS_S, MOST_FLOPS_S = 1e6, 1e18
FEWEST_BYTES_S, MOST_BYTES_S = 1e4, 1e16
MOST_SECONDS = 60.0
"""Of one call, or of an iteration's start. Rates and seconds beyond these are of no machine, and
seconds made from them would be infinite or none."""


class Fitted(BaseModel):
    """A fitted figure and its approximate 95 % interval."""

    model_config = MODEL

    value: Annotated[float, Field(gt=0)]
    low: Seconds
    high: Seconds
    num_cells: Annotated[int, Field(ge=1, strict=True)]
    """Cells in which it decides at least 5 % of the time."""
    efficiency: float | None = None
    """Over the datasheet's figure, where the device states one."""


def _between(least: float, most: float, unit: str) -> AfterValidator:
    def check(fitted: Fitted) -> Fitted:
        if not least <= fitted.value <= most:
            raise ValueError(f"value {fitted.value:g}: {least:g} to {most:g} {unit} is possible")
        return fitted

    return AfterValidator(check)


FlopRate = Annotated[Fitted, _between(FEWEST_FLOPS_S, MOST_FLOPS_S, "FLOP/s")]
ByteRate = Annotated[Fitted, _between(FEWEST_BYTES_S, MOST_BYTES_S, "B/s")]
Duration = Annotated[Fitted, _between(0, MOST_SECONDS, "s")]
Share = Annotated[Fitted, _between(0, 1, "of the shorter")]


class Spread(BaseModel):
    """Relative errors of predicted seconds, (predicted − measured) / measured."""

    model_config = MODEL

    median: Error
    """The median absolute error."""
    worst: Error
    bias: Annotated[float, Field(ge=-1, le=MOST_ERROR)]
    """The median signed error."""
    num_cells: Count


class Source(BaseModel):
    """A store that was used."""

    model_config = MODEL

    file: Text
    sha256: Annotated[str, Field(pattern=DIGEST_PATTERN)]
    num_records: Count


def phase_of(cell: Cell) -> Phase:
    """Which start an iteration has: a decode step begins as a forward does."""
    return "train" if cell.pass_ == "train" else "forward"


def kind_of(cell: Cell, host_bound: bool = False) -> str:
    """What errors are stated of: ``layer train``, ``training step``, ``prefill``, ``decode``, …"""
    if cell.scope == "layer":
        kind = f"layer {cell.pass_}"
    else:
        kind = {"train": "training step", "forward": "prefill"}.get(cell.pass_, cell.pass_)
        kind = f"{kind} with tower" if cell.scope == "lvlm" else kind
    return f"{kind}, host-bound" if host_bound else kind


OPTIONS = tuple(name for name, described in DESCRIPTIONS.items() if described.operators)
"""Fields that change which operators run, and that few cells have."""


def options_of(cell: Cell) -> tuple[str, ...]:
    """The fields of ``OPTIONS`` that a cell has at another value than the default."""
    defaults = {name: type(cell).model_fields[name].default for name in OPTIONS}
    return tuple(name for name, plain in defaults.items() if getattr(cell, name) != plain)


class Covered(BaseModel):
    """What the records were of: beyond it a calibration is an extrapolation."""

    model_config = MODEL

    num_visual: tuple[Count, Count]
    models: tuple[str, ...]
    attentions: tuple[str, ...]
    kernels: tuple[str, ...]
    scopes: tuple[str, ...]
    passes: tuple[str, ...]
    dtypes: tuple[str, ...]
    options: tuple[str, ...] = ()
    """Which of OPTIONS some cell had."""

    def beyond(self, cell: Cell) -> list[str]:
        """What of ``cell`` was not among the records, each as a clause."""
        low, high = self.num_visual
        fields = (
            ("model", cell.model, self.models),
            ("attention", cell.attention, self.attentions),
            ("kernel", cell.kernel, self.kernels),
            ("scope", cell.scope, self.scopes),
            ("pass", cell.pass_, self.passes),
            ("dtype", cell.dtype, self.dtypes),
        )
        clauses = [
            f"{field} {value!r} was not measured"
            for field, value, covered in fields
            if value not in covered
        ]
        clauses += [
            f"{name} was not measured" for name in options_of(cell) if name not in self.options
        ]
        if not low <= cell.num_visual <= high:
            clauses.append(f"|V| {cell.num_visual:,} is outside {low:,} to {high:,}")
        return clauses
