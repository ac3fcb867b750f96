"""``calibrate``: measured records of a device become rates for its predictions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.commands import show
from workbench.commands.cells import AsJson

if TYPE_CHECKING:
    from workbench.calibration import Calibration, Fitted


def calibrate(
    stores: Annotated[list[Path], typer.Argument(metavar="STORE...", help="Measured records.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    run: Annotated[str | None, typer.Option(help="One run; all without it.")] = None,
    device: Annotated[
        str | None, typer.Option(help="The entry to calibrate, where records do not tell.")
    ] = None,
    carry_to: Annotated[
        str | None,
        typer.Option(help="Write it for this entry: the same processor with other memory."),
    ] = None,
    json_: AsJson = False,
) -> None:
    """Fit what a device reaches to measured records; predictions then use it."""
    from workbench.sweep.calibrate import calibrate as fit_records

    found = fit_records(stores, device, run)
    if carry_to is not None:
        from workbench.sweep.carry import carried

        found = carried(found, carry_to)
    found.write(output)
    if json_:
        show.emit(found.model_dump(mode="json"))
        return
    print(f"{output}: {found.sentence}")
    show.table(("figure", "value", "95 %", "cells", "of the datasheet's"), _rows(found))
    for name, errors in (("fitted", found.fitted), *found.held_out.items()):
        what = "seen by the fit" if name == "fitted" else f"{name} held out"
        print(
            f"error of seconds, {what}: {errors.median:.1%} at the median, {errors.worst:.1%} at "
            f"worst, bias {errors.bias:+.1%}, {errors.num_cells} cells"
        )
    if found.undetermined:
        print(f"not determined by these records: {', '.join(found.undetermined)}")
    for reason, count in sorted(found.left_out.items()):
        print(f"left out: {count} {reason}")


def _rows(found: "Calibration") -> list[tuple[str, ...]]:
    rows = [_row(name, rate, "FLOP/s") for name, rate in found.flops_per_s.items()]
    rows += [_row(f"bytes of {name}", rate, "B/s") for name, rate in found.bytes_per_s.items()]
    named = ("exposed", "overhead", "launch")
    for name, value in zip(named, found.overheads, strict=True):
        if value is not None:
            rows.append(_row(name, value, "1" if name == "exposed" else "s"))
    return rows


def _row(name: str, fitted: "Fitted", unit: str) -> tuple[str, ...]:
    low, high = show.amount(fitted.low, unit), show.amount(fitted.high, unit)
    share = "" if fitted.efficiency is None else f"{fitted.efficiency:.0%}"
    value = show.amount(fitted.value, unit)
    return name, value, f"{low} to {high}", str(fitted.num_cells), share
