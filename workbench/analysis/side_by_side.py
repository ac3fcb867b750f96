"""Two systems at every |V| that both ran: how many times less the one needs than the other."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.analysis.headline import METRICS, Samples
from workbench.analysis.host_bound import host_bound
from workbench.vocabulary.record import Status
from workbench.vocabulary.stats import median_ratio

COLUMNS = ["metric", "series", "num_visual", "value", "baseline_value", "ratio", "low", "high"]
_BASE = "_baseline"


def side_by_side(
    frame: pd.DataFrame, system: str, baseline: str, samples: Samples
) -> pd.DataFrame:
    """A row for each metric and |V| that both series ran at, by growing |V|.

    ``frame``: cells of one subject under equal conditions, from one source and device. ``ratio``
    is baseline over system; of seconds it has a 95 % interval, ``low`` to ``high``, where both
    have ``samples``, and it is missing where one of the cards waited for its host.
    """
    ran = frame.assign(waited=host_bound(frame))
    ran = ran[ran["status"] == Status.OK.value]
    ours, theirs = (
        ran[ran["series"] == name].drop_duplicates("num_visual", keep="last")
        for name in (system, baseline)
    )
    both = ours.merge(theirs, on="num_visual", suffixes=("", _BASE)).sort_values("num_visual")
    rows = []
    for metric in METRICS:
        for row in both.to_dict("records"):
            value, base = row[metric], row[metric + _BASE]
            if not pd.isna(value) and not pd.isna(base) and value > 0:
                facts = (metric, system, row["num_visual"], value, base)
                rows.append((*facts, *_ratio(row, metric, samples)))
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.astype(dict.fromkeys(("ratio", "low", "high"), "float64"))


def _ratio(
    row: Mapping[Any, Any], metric: str, samples: Samples
) -> tuple[float | None, float | None, float | None]:
    """Baseline over system, and the ends of its interval where it has one."""
    ratio = float(row[metric + _BASE]) / float(row[metric])
    if metric != "time_s":
        return ratio, None, None
    if row["waited"] or row["waited" + _BASE]:
        return None, None, None
    theirs, ours = (
        samples.get((row["run" + end], row["key" + end], row["source"], row["device"]), ())
        for end in (_BASE, "")
    )
    if not theirs or not ours:
        return ratio, None, None
    _, low, high = median_ratio(theirs, ours)
    return ratio, low, high
