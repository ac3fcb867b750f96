"""``limit``: the OOM threshold of a cell."""

from typing import TYPE_CHECKING, Annotated

import typer

from workbench.commands import show
from workbench.commands.cells import AsJson
from workbench.commands.options import takes_cell_of_any_size

if TYPE_CHECKING:
    from workbench.spec import Cell


@takes_cell_of_any_size
def limit(
    cell: "Cell",
    device: Annotated[
        str, typer.Option(help="A device entry, or a YAML file of one.")
    ] = "h100-80gb",
    json_: AsJson = False,
) -> None:
    """The largest |V| that fits a device, as a bracket of at most 1 %, and what stops it."""
    from workbench.probe.limit import predicted_limit

    found = predicted_limit(cell, device)
    if json_:
        show.emit(found.document())
        return
    print(f"{found.source} on {found.device}, {found.capacity_bytes:,} bytes")
    if found.max_visual is None:
        print("nothing fits, not even without a visual token")
    else:
        beyond = "" if found.fails_at is None else f", {found.fails_at:,} do not"
        print(f"{found.max_visual:,} visual tokens fit{beyond}")
    print(f"stopped by {found.stopped_by}")
