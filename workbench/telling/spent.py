"""Where the seconds of a cell went: by part and by operator, traced, or else predicted."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from workbench.vocabulary.record import Record

COLUMNS = ["by", "name", "time_s", "flops", "bytes", "calls", "bound", "how"]
"""``bound``: compute, memory or overhead; None where that was not predicted."""
KINDS = ("part", "operator")
NUMBERS = ("time_s", "flops", "bytes", "calls")
TRACED, PREDICTED = "traced", "predicted"
PARTS = ("trace.parts", "modules")
"""Where in its details a record says the time of its parts."""


def spent_of(record: Record) -> pd.DataFrame:
    """One row for each part and each operator of a record, the longest first; empty without both.

    ``how`` is 'traced' where the profiler timed them, 'predicted' where the roofline did. What a
    stranger's store says is taken as far as it makes sense.
    """
    trace = record.details.get("trace")
    if isinstance(trace, dict):
        rows = [_row("part", row, "part", TRACED) for row in _rows(trace.get("parts"))]
        rows += [
            _row("operator", row, "operator", TRACED) for row in _rows(trace.get("operators"))
        ]
    else:
        operators, modules = (_rows(record.details.get(k)) for k in ("operators", "modules"))
        rows = [_row("operator", row, "operator", PREDICTED) for row in operators]
        rows += [_row("part", row, "module", PREDICTED) for row in modules]
    if not rows:
        return pd.DataFrame(columns=COLUMNS)
    frame = pd.DataFrame(rows, columns=COLUMNS)
    # Tower and decoder run the same operators and modules: a row of each.
    groups = frame.sort_values("time_s", ascending=False).groupby(
        ["by", "name", "how"], sort=False
    )
    numbers = {name: groups[name].sum(min_count=1) for name in NUMBERS}
    summed = pd.DataFrame(numbers | {"bound": groups["bound"].first()}).reset_index()
    return summed[COLUMNS].sort_values("time_s", ascending=False, kind="stable")


def _rows(value: Any) -> Iterable[Mapping[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _row(by: str, row: Mapping[str, Any], name: str, how: str) -> dict[str, Any]:
    bound = row.get("bound")
    return {
        "by": by,
        "name": str(row.get(name, "other")),
        "how": how,
        "bound": bound if isinstance(bound, str) else None,
        **{each: _number(row.get(each)) for each in NUMBERS},
    }


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def trace_file(record: Record) -> str | None:
    """The bare name of the record's trace file; None where it has none, or names a path."""
    trace = record.details.get("trace")
    name = trace.get("file") if isinstance(trace, dict) else None
    if not isinstance(name, str) or not name or name.startswith(".") or set(name) & set("/\\\0"):
        return None
    return name
