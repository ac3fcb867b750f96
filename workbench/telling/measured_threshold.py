"""A measured threshold of a store, for a cell that somebody asks about."""

import pandas as pd

from workbench.analysis import emulation, limits
from workbench.telling.view import same_card
from workbench.vocabulary.cell import FIELDS, Cell
from workbench.vocabulary.devices import DEVICES

FREE = ("num_visual", "kernel", "layer")


def measured_threshold(frame: pd.DataFrame, cell: Cell, device: str) -> str | None:
    """The widest bracket that was measured on that card of the same cell, in a sentence.

    Kernels other than eager stand for one another, and the sentence names the one. None where
    nothing of it ran out of memory.
    """
    entry = DEVICES[device]
    names = [name for name in frame["device"].unique() if same_card(entry, str(name))]
    rows = frame[(frame["source"] == "measured") & frame["device"].isin(names)]
    rows = rows[(rows["kernel"] == "eager") == (cell.kernel == "eager")]
    for name, value in cell.document().items():
        if rows.empty:
            return None
        if name in FREE or name not in FIELDS:
            continue
        rows = rows[rows[name].isna() if value is None else rows[name] == value]
    thresholds = limits(rows).dropna(subset=["max_visual", "fails_at"]) if len(rows) else rows
    if thresholds.empty:
        return None
    best = thresholds.sort_values("max_visual").iloc[-1]
    ran = rows[(rows["series"] == best["series"]) & (rows["num_visual"] == best["max_visual"])]
    how = emulation(ran["flags"])
    return (
        f"Measured: {best['max_visual']:,} visual tokens ran, {best['fails_at']:,} were out of"
        f" memory ({best['kernel']}, {best['device']}{f', emulated: {how}' if how else ''})"
    )
