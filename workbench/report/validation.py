"""Predicted beside measured: the cells that have both, as ratios."""

import pandas as pd

from workbench.devices import DEVICES
from workbench.report.view import same_card

TOLERANCE = 0.02
"""Predicted and measured bytes of a layer agree within this share on a CPU."""
METRICS = ("flops", "peak_bytes", "time_s")
COLUMNS = ["metric", "series", "key", "num_visual", "ratio", "low", "high", "note"]


def both_sources(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each cell and metric that was predicted and measured: predicted over measured.

    ``low`` and ``high`` take the measured quartiles for the median; NaN where there are none.
    """
    measured = frame[(frame["source"] == "measured") & (frame["status"] == "ok")]
    predicted = frame[frame["source"] == "predicted"]
    both = measured.merge(predicted, on="key", suffixes=("", "_predicted"))
    found = []
    for row in both.to_dict("records"):
        for metric in METRICS:
            value, guess = row[metric], row[f"{metric}_predicted"]
            if pd.isna(value) or pd.isna(guess) or not value:
                continue
            if metric == "time_s" and not _same(row["device_predicted"], row["device"]):
                continue
            quartiles = metric == "time_s" and not pd.isna(row["time_q1_s"])
            found.append({
                "metric": metric, "series": row["series"], "key": row["key"],
                "num_visual": row["num_visual"], "ratio": guess / value,
                "low": guess / row["time_q3_s"] if quartiles else None,
                "high": guess / row["time_q1_s"] if quartiles else None,
                "note": f"{row['device']} measured, {row['device_predicted']} predicted",
            })  # fmt: skip
    return pd.DataFrame(found, columns=COLUMNS).astype({"low": "float64", "high": "float64"})


def _same(entry: str, driver: str) -> bool:
    return entry == driver or (entry in DEVICES and same_card(DEVICES[entry], driver))
