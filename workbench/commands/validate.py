"""``validate``: predictions against the measured records of a store."""

from typing import Annotated

import typer

from workbench.commands import show
from workbench.commands.cells import AsJson
from workbench.commands.stores import StorePath


def validate(
    store: StorePath,
    run: Annotated[str | None, typer.Option(help="One run; all without it.")] = None,
    device: Annotated[
        str | None, typer.Option(help="The entry to predict for, where names do not tell.")
    ] = None,
    json_: AsJson = False,
) -> None:
    """How far predictions are from measured records: median, worst and bias by system."""
    from workbench.sweep.validate import validation

    found = validation(store, run, device)
    if json_:
        show.emit(found)
        return
    if not found["summary"]:
        print("no measured record that ended ok: nothing to validate")
        return
    rows = [
        (
            row["metric"],
            row["attention"],
            str(row["num_cells"]),
            f"{row['median']:.2%}",
            f"{row['worst']:.2%}",
            f"{row['bias']:+.2%}",
        )
        for row in found["summary"]
    ]
    show.table(("metric", "system", "cells", "median error", "worst", "bias"), rows)
