"""Two runs, cell by cell: faster, slower, the same, or too uncertain to tell."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from workbench.analysis.series import with_series
from workbench.vocabulary.record import Environment, Status
from workbench.vocabulary.stats import median_ratio

IDENTITY = ["key", "source", "device"]
FASTER, SLOWER, SAME, UNKNOWN = "faster", "slower", "same", "can't tell"
TOLERANCE = 0.02
"""Two medians this close are the same for the purpose: each is known to about 1 %."""

Samples = Mapping[tuple[str, str, str], Sequence[float]]
"""Samples of the metric by (key, source, device)."""

COLUMNS = [
    "key",
    "source",
    "device",
    "series",
    "model",
    "scope",
    "pass",
    "num_visual",
    "metric",
    "old",
    "new",
    "ratio",
    "low",
    "high",
    "old_num_samples",
    "new_num_samples",
    "verdict",
    "note",
]


def environment_differences(old: Environment, new: Environment) -> list[str]:
    """What keeps two runs from being compared: one line a fact, ``torch: 2.11 -> 2.13``."""
    before, after = (e.model_dump(exclude={"host", "commit"}) for e in (old, new))
    names = sorted(before.keys() | after.keys())
    pairs = [(name, before.get(name), after.get(name)) for name in names]
    return [f"{name}: {was} -> {now}" for name, was, now in pairs if was != now]


def compare(
    old: pd.DataFrame,
    new: pd.DataFrame,
    old_samples: Samples,
    new_samples: Samples,
    metric: str = "time_s",
    tolerance: float = TOLERANCE,
) -> pd.DataFrame:
    """One row for each cell of either frame: ``ratio`` is new over old, with its 95 % interval.

    A metric with samples is ``same`` where the whole interval lies within ``tolerance`` of 1,
    else ``slower`` or ``faster`` where the interval excludes 1, else ``can't tell``. Without
    samples the value is taken to be exact (a count, bytes, a prediction), except for measured
    seconds, which cannot be told apart then. For bytes and counts ``slower`` reads as ``more``.
    A cell that ends another way than before, or that only one side holds, has a note: a cell that
    ran and no longer does is ``slower``.
    """
    before, after = _latest(old, metric), _latest(new, metric)
    rows = []
    for identity in dict.fromkeys([*before, *after]):
        was, now = before.get(identity), after.get(identity)
        row = was if now is None else now
        assert row is not None
        facts = {name: row[name] for name in COLUMNS[:8]} | {"metric": metric}
        if was is None or now is None:
            note = "only in the new run" if was is None else "only in the old run"
            rows.append({**facts, "verdict": UNKNOWN, "note": note})
            continue
        sampled = old_samples.get(identity, ()), new_samples.get(identity, ())
        rows.append(
            {
                **facts,
                "old": was[metric],
                "new": now[metric],
                "old_num_samples": len(sampled[0]),
                "new_num_samples": len(sampled[1]),
                **_judged(was, now, sampled, metric, tolerance),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def _latest(frame: pd.DataFrame, metric: str) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    # Column by column: rows of a wide table one by one would take longer than all the rest.
    names = [*COLUMNS[:8], "status", metric]
    columns = [with_series(frame)[name].tolist() for name in names]
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    return {(row["key"], row["source"], row["device"]): row for row in rows}


def _judged(
    was: Mapping[str, Any],
    now: Mapping[str, Any],
    sampled: tuple[Sequence[float], Sequence[float]],
    metric: str,
    tolerance: float,
) -> dict[str, Any]:
    if was["status"] != now["status"]:
        ok = Status.OK.value
        verdict = {was["status"]: SLOWER, now["status"]: FASTER}.get(ok, UNKNOWN)
        return {"verdict": verdict, "note": f"was {was['status']}, is {now['status']}"}
    if pd.isna(was[metric]) or pd.isna(now[metric]):
        return {"verdict": UNKNOWN, "note": f"no {metric}"}
    if was[metric] <= 0 or now[metric] <= 0:
        verdict = SAME if was[metric] == now[metric] else UNKNOWN
        return {"verdict": verdict, "note": "a value of 0 has no ratio"}
    if all(sampled):
        ratio, low, high = median_ratio(sampled[1], sampled[0])
    else:
        ratio = now[metric] / was[metric]
        exact = now["source"] == "predicted" or metric != "time_s"
        low, high = (ratio, ratio) if exact else (None, None)
    facts = {"ratio": ratio, "low": low, "high": high, "note": ""}
    if low is None or high is None:
        return {**facts, "verdict": UNKNOWN, "note": "fewer than 6 samples: no interval"}
    return {**facts, "verdict": _verdict(low, high, tolerance)}


def _verdict(low: float, high: float, tolerance: float) -> str:
    if 1 - tolerance <= low and high <= 1 + tolerance:
        return SAME
    if low > 1:
        return SLOWER
    return FASTER if high < 1 else UNKNOWN
