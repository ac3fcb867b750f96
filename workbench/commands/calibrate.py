"""``calibrate``: measured records of a device become rates for its predictions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.commands import show
from workbench.commands.cells import AsJson
from workbench.commands.checks import check_store
from workbench.vocabulary.errors import Faults

if TYPE_CHECKING:
    from workbench.vocabulary.calibration import Calibration
    from workbench.vocabulary.calibration_parts import Fitted


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
    alone: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Say how a fit of this run predicts the other runs."),
    ] = None,
    json_: AsJson = False,
) -> None:
    """Fit what a device reaches to measured records; predictions then use it."""
    with show.waiting("fitting, and predicting cells that a fit did not see"):
        from workbench.sweep.calibrate import calibrate as fit_records
        from workbench.vocabulary.devices import device as device_entry

        faults = Faults()
        for name in filter(None, (device, carry_to)):
            with faults:
                device_entry(name)  # Before what takes a minute.
        for path in stores:
            with faults:
                check_store(path)
        faults.raise_all()
        calibration = fit_records(stores, device, run, alone)
        if carry_to is not None:
            from workbench.sweep.calibration_transfer import carried

            calibration = carried(calibration, carry_to)
    calibration.write(output)
    if json_:
        show.emit(calibration.model_dump(mode="json"))
        return
    show.say(f"{output}: {calibration.sentence}")
    show.table(("figure", "value", "95 %", "cells", "of the datasheet's"), _rows(calibration))
    show.say(
        f"error of seconds, seen by the fit: {calibration.fitted.median:.1%} at the median, "
        f"{calibration.fitted.worst:.1%} at worst, {calibration.fitted.num_cells} cells, of which "
        f"{calibration.num_host_bound} are bound by the host and had no say in the rates"
    )
    print("errors of cells that a fit did not see:")
    show.table(
        ("left out", "kind of cell", "median", "worst", "bias", "cells"), _error_rows(calibration)
    )
    if calibration.undetermined:
        show.say(f"not determined by these records: {', '.join(calibration.undetermined)}")
    for reason, count in sorted(calibration.left_out.items()):
        print(f"left out: {count} {reason}")


def _error_rows(calibration: "Calibration") -> list[tuple[str, ...]]:
    from workbench.vocabulary.calibration_parts import WAYS

    ways = {**WAYS, "alone": f"a fit of {calibration.alone} alone"}
    return [
        (
            ways[way],
            kind,
            *(f"{e:.1%}" for e in (s.median, s.worst)),
            f"{s.bias:+.1%}",
            str(s.num_cells),
        )
        for way, whole in calibration.held_out.items()
        for kind, s in {"all": whole, **calibration.held_out_by_kind[way]}.items()
    ]


def _rows(calibration: "Calibration") -> list[tuple[str, ...]]:
    rows = [_row(name, rate, "FLOP/s") for name, rate in calibration.flops_per_s.items()]
    rows += [
        _row(f"bytes of {name}", rate, "B/s") for name, rate in calibration.bytes_per_s.items()
    ]
    names = ("exposed", "overhead", "launch")
    for name, value in zip(names, calibration.overheads, strict=True):
        if value is not None:
            rows.append(_row(name, value, "1" if name == "exposed" else "s"))
    rows += [_row(f"start of a {name}", value, "s") for name, value in calibration.start_s.items()]
    return rows


def _row(name: str, fitted: "Fitted", unit: str) -> tuple[str, ...]:
    low, high = show.amount(fitted.low, unit), show.amount(fitted.high, unit)
    share = "" if fitted.efficiency is None else f"{fitted.efficiency:.0%}"
    value = show.amount(fitted.value, unit)
    return name, value, f"{low} to {high}", str(fitted.num_cells), share
