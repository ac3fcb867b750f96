"""What a card can do at most: the two lines of a roofline, and where they come from."""

import pandas as pd

from workbench.figures import Ceilings
from workbench.telling.view import same_card
from workbench.vocabulary.devices import DEVICES, Device

REACHED = ("ceiling_flops_s", "ceiling_bytes_s")


def entry_of(rows: pd.DataFrame) -> Device | None:
    """The device entry of the rows' device, as its name or its driver's says."""
    name = str(rows["device"].iloc[0])
    return next((d for d in DEVICES.values() if d.name == name or same_card(d, name)), None)


def rates(rows: pd.DataFrame) -> tuple[float | None, float | None]:
    """FLOP/s and bytes/s of the rows' device by its datasheet."""
    entry = entry_of(rows)
    if entry is None:
        return None, None
    return entry.peak(str(rows["dtype"].iloc[0])), entry.bandwidth_bytes_per_s


def ceilings(rows: pd.DataFrame) -> tuple[list[Ceilings], str, str]:
    """The ceilings to draw, by datasheet and as measured, what there is to say of them, and where
    the datasheet's figures stand.
    """
    name, dtype = str(rows["device"].iloc[0]), str(rows["dtype"].iloc[0])
    lines, words, source = [], [], ""
    entry, (peak, bandwidth) = entry_of(rows), rates(rows)
    if entry is None or peak is None or bandwidth is None:
        words.append(f"No datasheet gives ceilings for {name} in {dtype}.")
    else:
        lines.append(Ceilings("datasheet", peak, bandwidth))
        words.append(
            f"Ceilings: dense {dtype} peak and bandwidth of {entry.label} by its datasheet."
        )
        source = (
            f"Peak: {entry.sources['peak_flops']}. Bandwidth:"
            f" {entry.sources['bandwidth_bytes_per_s']}."
        )
    reached = rows[(rows["dtype"] == dtype) & (rows["source"] == "measured")]
    reached = reached.reindex(columns=[*REACHED]).dropna()
    if not reached.empty:
        lines.append(Ceilings("measured", *map(float, reached.iloc[-1])))
        words.append(
            f"Measured on this machine: a large {dtype} matmul and a large copy, once for its"
            " environment."
        )
    return lines, " ".join(words), source
