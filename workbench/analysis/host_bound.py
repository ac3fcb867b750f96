"""Cells in which the card waited for the host: their seconds tell nothing of the method."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from workbench.record import METRICS

FLAG = "host_bound"
"""Of a record whose card was busy for less than nine tenths of an iteration."""
RATES = ("s", "1/s", "FLOP/s", "B/s")
OF_THE_DEVICE = ("device_time_s", "prepare_s", "ceiling_flops_s", "ceiling_bytes_s")
SHARES = ("mfu", "mfu_causal", "mfu_at_clock", "ceiling_fraction")


def depends_on_time(metric: str) -> bool:
    """Whether a metric is made of a whole iteration's seconds."""
    if metric in OF_THE_DEVICE or metric not in METRICS:
        return False
    return metric in SHARES or METRICS[metric].unit in RATES


def host_bound(frame: pd.DataFrame) -> np.ndarray:
    """Which rows of a store's frame have the flag; none where it has no flags."""
    if "flags" not in frame:
        return np.zeros(len(frame), dtype=bool)
    # Rows with the same flags share one tuple, and most have the same.
    known: dict[int, bool] = {}
    found = []
    for flags in frame["flags"]:
        if id(flags) not in known:
            known[id(flags)] = any(flag.partition(":")[0] == FLAG for flag in flags)
        found.append(known[id(flags)])
    return np.array(found, dtype=bool)


def without_host_bound(frame: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The frame with what depends on time missing where the host set the pace."""
    timed = [name for name in metrics if name in frame and depends_on_time(name)]
    which = host_bound(frame) if timed else np.zeros(0, dtype=bool)
    if not which.any():
        return frame
    return frame.assign(**{name: frame[name].mask(which) for name in timed})
