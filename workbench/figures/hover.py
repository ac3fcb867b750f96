"""What a point says when the pointer rests on it."""

import math
from collections.abc import Mapping
from typing import Any

from workbench.analysis import depends_on_time, marks
from workbench.analysis.trust import trust
from workbench.figures.style import FAILURES, plain
from workbench.vocabulary.metrics import METRICS
from workbench.vocabulary.units import quantity

ROOFLINE = ("time_s", "mfu", "mfu_causal", "samples_per_s")
"""Metrics that a prediction has from a roofline."""


def hover(row: Mapping[Any, Any], metric: str) -> str:
    """The cell, its value and how many samples stand behind it; store's names made plain."""
    value, samples = row[metric], row.get("num_samples")
    times = int(samples) if isinstance(samples, float) and samples > 0 else 0
    lines = [
        f"<b>{plain(row['series'])}</b>",
        f"|V| = {row['num_visual']:,}, |T| = {row['num_text']:,}, batch {row['batch']:,}",
        f"{plain(row['model'])}, {row['scope']}, {row['pass']}, {row['dtype']}",
        f"{row['source']} on {plain(row['device'])}"
        if row["source"] == "measured"
        else f"predicted for {plain(row['device'])}",
    ]
    if isinstance(value, (int, float)) and not math.isnan(value):
        amount = quantity(value, METRICS[metric].unit)
        lines.append(f"{METRICS[metric].label}: <b>{amount}</b>")
    if times and metric == "time_s":
        low, high = quantity(row["time_q1_s"], "s"), quantity(row["time_q3_s"], "s")
        lines.append(f"median of {times} samples, quartiles {low} to {high}")
    elif times:
        lines.append(f"{times} timed iterations")
    if metric in ROOFLINE:
        flags = row.get("flags")
        every = [trust(flag) for flag in (flags if isinstance(flags, (tuple, list)) else ())]
        lines += [plain(words[:120]) for words in every if words]
    words = marks({**row, "num_samples": None, "host_bound": False}, depends_on_time(metric))
    if words:
        lines.append(", ".join(words))
    if row.get("host_bound") and depends_on_time(metric):
        lines.append("the card waited for the host: not in fits and headlines")
    if row["status"] != "ok":
        lines.append(f"<b>{FAILURES.get(str(row['status']), ('', row['status']))[1]}</b>")
        if row.get("error"):
            lines.append(plain(str(row["error"])[:120]))
    return "<br>".join(lines)
