"""What somebody writes who uses the Python interface: ``make check`` reads it, nothing runs it.

A line marked ``type: ignore`` is one that the type checker must refuse.
"""

from pathlib import Path

import pandas as pd

from workbench import (
    Cell,
    Grid,
    Protocol,
    Sweep,
    limit,
    measure,
    open_store,
    plot,
    predict,
    run_sweep,
    write_report,
)


def use(folder: Path) -> float | None:
    """Every function of the interface, with the types that it takes and gives."""
    cell = Cell(num_visual=729, pass_="train", attention="d_attn")
    predict("d_attn")  # type: ignore[arg-type]
    peak: int | float | None = predict(cell).metrics["peak_bytes"]
    measure(cell, "cpu", protocol=Protocol(max_seconds=1.0), trace=folder)
    measure(cell, "cpu", max_seconds=1.0)  # type: ignore[call-arg]
    fits: int | None = limit(cell, measured=True).max_visual
    sweep = Sweep(name="typed", grids=(Grid(visual=(1, 2)),))
    counts: dict[str, int] = run_sweep(sweep, folder / "typed.db").counts
    with open_store(folder / "typed.db") as store:
        frame: pd.DataFrame = store.frame()
        plot(store, "time_s")
    plot(frame, ["flops", "time_s"]).show()
    page: Path = write_report(folder / "typed.db", folder / "report").html
    print(page, fits, counts)
    return peak
