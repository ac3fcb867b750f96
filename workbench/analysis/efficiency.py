"""Efficiency length: the |V| from which on a system takes less than another, as tested."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from workbench.analysis.series import CONDITIONS, SUBJECT, with_series

_PLACE = (*SUBJECT, *CONDITIONS, "source", "device")
_COLUMNS = [*_PLACE, "series", "attention", "baseline", "metric", "less_from", "not_less_at"]


def efficiency_lengths(frame: pd.DataFrame, baseline: str, metrics: Sequence[str]) -> pd.DataFrame:
    """One row a line, metric and the series ``baseline`` under the same conditions.

    ``less_from`` is the smallest |V| from which on the line is below the baseline at every |V|
    that both have, ``not_less_at`` the largest at which it is not; both nullable integers. Cells
    without the metric say nothing. The length lies between the two.
    """
    rows = with_series(frame)
    lengths = []
    for _, group in rows.groupby(list(_PLACE), dropna=False, sort=False):
        theirs = group[group["series"] == baseline]
        if theirs.empty:
            continue
        for series, own in group[group["series"] != baseline].groupby("series", sort=False):
            first = own.iloc[0]
            shared = own.merge(theirs, on="num_visual", suffixes=("", "_theirs"))
            shared = shared.sort_values("num_visual")
            for metric in metrics:
                both = shared.dropna(subset=[metric, f"{metric}_theirs"])
                if both.empty:
                    continue
                less = (both[metric] < both[f"{metric}_theirs"]).to_numpy()
                at = both["num_visual"].to_numpy()
                not_less = np.flatnonzero(~less)
                start = not_less[-1] + 1 if len(not_less) else 0
                lengths.append(
                    {
                        **{name: first[name] for name in _PLACE},
                        "series": series,
                        "attention": first["attention"],
                        "baseline": baseline,
                        "metric": metric,
                        "less_from": int(at[start]) if start < len(at) else None,
                        "not_less_at": int(at[start - 1]) if start else None,
                    }
                )
    table = pd.DataFrame(lengths, columns=_COLUMNS)
    return table.astype({"less_from": "Int64", "not_less_at": "Int64"})
