"""Predicted beside measured: the cells that have both, as ratios."""

import math
from functools import cache

import pandas as pd

from workbench.telling.view import same_card
from workbench.vocabulary.devices import DEVICES

TOLERANCE = 0.02
"""Predicted and measured bytes of a layer agree within this share on a CPU."""
METRICS = ("flops", "peak_bytes", "time_s")
COLUMNS = ["metric", "series", "key", "num_visual", "ratio", "low", "high", "note"]


def with_both(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of cells that are both measured, to the end, and predicted."""
    measured = (frame["source"] == "measured") & (frame["status"] == "ok")
    predicted = frame["source"] == "predicted"
    in_both = frame["key"].isin(frame.loc[measured, "key"].unique())
    in_both &= frame["key"].isin(frame.loc[predicted, "key"].unique())
    return frame[(measured | predicted) & in_both]


def both_sources(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each cell and metric that was predicted and measured: predicted over measured.

    ``low`` and ``high`` take the measured quartiles for the median; NaN where there are none.
    """
    needed = ["key", "series", "num_visual", "device", "time_q1_s", "time_q3_s", *METRICS]
    measured = frame.loc[(frame["source"] == "measured") & (frame["status"] == "ok"), needed]
    predicted = frame.loc[frame["source"] == "predicted", ["key", "device", *METRICS]]
    both = measured.merge(predicted, on="key", suffixes=("", "_predicted"))
    devices = zip(both["device_predicted"].tolist(), both["device"].tolist(), strict=True)
    same = pd.Series([_same(entry, driver) for entry, driver in devices], dtype=bool)
    note = both["device"] + " measured, " + both["device_predicted"] + " predicted"
    tables = []
    for metric in METRICS:
        guess = both[f"{metric}_predicted"]
        timed = metric == "time_s"
        ratios = both[["series", "key", "num_visual"]].assign(
            metric=metric,
            ratio=guess / both[metric],
            low=guess / both["time_q3_s"] if timed else math.nan,
            high=guess / both["time_q1_s"] if timed else math.nan,
            note=note,
        )
        keep = guess.notna() & (both[metric] > 0) & (same | (not timed))
        tables.append(ratios[keep][COLUMNS])
    return pd.concat(tables, ignore_index=True)


def errors_by(pairs: pd.DataFrame, field: str) -> pd.DataFrame:
    """One row a metric and value of ``field``: cells, and median, worst and bias of the error.

    The error is the ratio less 1; median and worst are of its size, the bias is its median.
    """
    errors = pairs["ratio"] - 1
    groups = pairs.assign(error=errors, size=errors.abs()).groupby(["metric", field], sort=False)
    summary = groups.agg(
        cells=("error", "size"),
        median=("size", "median"),
        worst=("size", "max"),
        bias=("error", "median"),
    )
    return summary.reset_index()


@cache
def _same(entry: str, driver: str) -> bool:
    return entry == driver or (entry in DEVICES and same_card(DEVICES[entry], driver))
