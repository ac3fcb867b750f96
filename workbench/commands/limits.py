"""``limit``: the OOM threshold of a cell, predicted or measured."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.commands import show
from workbench.commands.cells import TIMEOUT_S, AsJson
from workbench.commands.options import takes_cell_of_any_size
from workbench.errors import RequestError

if TYPE_CHECKING:
    from workbench.probe.limit import Limit
    from workbench.probe.measured_limit import MeasuredLimit
    from workbench.spec import Cell

PREDICTED_ON = "h100-80gb"


@takes_cell_of_any_size
def limit(
    cell: "Cell",
    device: Annotated[
        str | None,
        typer.Option(
            help="A device entry or a YAML file of one; with --measure auto, cpu or cuda:N.",
            show_default=f"{PREDICTED_ON}, auto with --measure",
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Run both ends here, each in a fresh process.")
    ] = False,
    store: Annotated[
        Path | None, typer.Option(help="With --measure: keep every trial's record here.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="With --measure: seconds until a silent trial is ended.")
    ] = TIMEOUT_S,
    json_: AsJson = False,
) -> None:
    """The largest |V| that fits a device, as a bracket of at most 1 %, and what stops it."""
    if store is not None and not measure:
        raise RequestError(f"store {str(store)!r}: only trials are stored; give --measure too")
    if measure:
        found: Limit = _measured(cell, device or "auto", store, timeout)
    else:
        from workbench.probe.limit import predicted_limit

        found = predicted_limit(cell, device or PREDICTED_ON)
    if json_:
        show.emit(found.document())
        return
    print(f"{found.source} on {found.device}, {found.capacity_bytes:,} bytes")
    if found.max_visual is None:
        fewest = "nothing fits" if not found.fails_at else "no size was found that fits"
        print(f"{fewest}; {found.fails_at:,} visual tokens do not")
    else:
        beyond = "" if found.fails_at is None else f", {found.fails_at:,} do not"
        print(f"{found.max_visual:,} visual tokens fit{beyond}")
    print(f"stopped by {found.stopped_by}")
    for flag in getattr(found, "flags", ()):
        print(f"flag  {flag}")


def _measured(cell: "Cell", device: str, path: Path | None, timeout: float) -> "MeasuredLimit":
    from workbench.probe.environment import environment, resolve_device
    from workbench.probe.measured_limit import measured_limit
    from workbench.record import Record
    from workbench.spec import make_protocol
    from workbench.store import Store

    protocol = make_protocol(timeout_s=timeout)
    place = resolve_device(device)
    with nullcontext() if path is None else Store.open(path, "w") as opened:
        run = None if opened is None else opened.begin_run("limit", {}, environment(place))

        def keep(record: Record) -> None:
            seconds = record.metrics.get("time_s")
            took = "" if seconds is None else f", {show.amount(seconds, 's')} an iteration"
            show.note(f"|V| = {record.cell.num_visual:,}: {record.status}{took}")
            if opened is not None and run is not None:
                opened.add(run, record)

        return measured_limit(cell, place, protocol, keep)
