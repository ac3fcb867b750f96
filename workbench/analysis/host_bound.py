"""Cells in which the card waited for the host: their seconds tell nothing of the method."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from workbench.analysis.series import LINE, group_codes, with_series
from workbench.vocabulary.metrics import METRICS

FLAG = "host_bound"
"""Of a record whose card was busy for less than nine tenths of an iteration."""
RATES = ("s", "1/s", "FLOP/s", "B/s")
OF_THE_DEVICE = ("device_time_s", "prepare_s", "ceiling_flops_s", "ceiling_bytes_s")
SHARES = ("mfu", "mfu_causal", "mfu_at_clock", "ceiling_fraction")
MORE_WORK = 1.5
"""Times the FLOPs from one |V| to the next from which the seconds must grow with them."""
FOLLOWS = 0.5
"""The least exponent of that growth: doubled FLOPs take at least 1.41 times as long."""
_GROWTH = ("source", "device", "status", "num_visual", "time_s", "flops")


def depends_on_time(metric: str) -> bool:
    """Whether a metric is made of a whole iteration's seconds."""
    if metric in OF_THE_DEVICE or metric not in METRICS:
        return False
    return metric in SHARES or METRICS[metric].unit in RATES


def host_bound(frame: pd.DataFrame) -> np.ndarray:
    """Which rows' seconds are the host's: those with the flag, and those that show it.

    A record of a card without ``busy_share`` cannot say whether the card was busy. Its seconds
    show it where the next |V| of its line has far more FLOPs and hardly takes longer.
    """
    bound = _flagged(frame)
    if {*_GROWTH, *LINE} - {"series"} <= {*frame.columns}:
        bound |= _flat(frame)
    return bound


def _flagged(frame: pd.DataFrame) -> np.ndarray:
    """Which rows have the flag; none where the frame has no flags."""
    if "flags" not in frame:
        return np.zeros(len(frame), dtype=bool)
    # Rows with the same flags share one tuple, and most have the same.
    flags = frame["flags"].to_numpy()
    same = np.fromiter(map(id, flags), dtype=np.int64, count=len(flags))
    _, first, codes = np.unique(same, return_index=True, return_inverse=True)
    has = [any(flag.partition(":")[0] == FLAG for flag in each) for each in flags[first]]
    return np.array(has, dtype=bool)[codes]


def _flat(frame: pd.DataFrame) -> np.ndarray:
    """Which measured rows of a card lie where its line's seconds do not follow the FLOPs."""
    flat = np.zeros(len(frame), dtype=bool)
    unknown = frame["busy_share"].isna() if "busy_share" in frame else True
    able = (frame["source"] == "measured") & (frame["device"] != "cpu") & unknown
    able &= (frame["time_s"] > 0) & (frame["flops"] > 0)
    places = np.flatnonzero(able.to_numpy(dtype=bool))
    if len(places) < 2:
        return flat
    rows = with_series(frame).iloc[places]
    codes, at = group_codes(rows, LINE), rows["num_visual"].to_numpy()
    seconds = rows["time_s"].to_numpy(dtype=float)
    work = rows["flops"].to_numpy(dtype=float)
    order = np.lexsort((at, codes))
    for group in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        flat[places[group[_waiting(seconds[group], work[group])]]] = True
    return flat


def _waiting(seconds: np.ndarray, work: np.ndarray) -> np.ndarray:
    """Of one line by growing |V|: the points below the last pair that does not grow as it must.

    Where that pair is the line's last, its upper point is the host's as well if it took no longer.
    """
    more, longer = np.log(work[1:] / work[:-1]), np.log(seconds[1:] / seconds[:-1])
    flat = (more >= np.log(MORE_WORK)) & (longer < FOLLOWS * more)
    waiting = np.zeros(len(seconds), dtype=bool)
    last = np.flatnonzero(flat)
    if len(last):
        waiting[: last[-1] + 1] = True
        waiting[-1] = last[-1] == len(flat) - 1 and longer[-1] < FOLLOWS * more[-1] / 2
    return waiting


def without_host_bound(frame: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The frame with what depends on time missing where the host set the pace."""
    timed = [name for name in metrics if name in frame and depends_on_time(name)]
    which = host_bound(frame) if timed else np.zeros(0, dtype=bool)
    if not which.any():
        return frame
    return frame.assign(**{name: frame[name].mask(which) for name in timed})
