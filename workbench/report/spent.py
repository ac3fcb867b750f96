"""Where the seconds of a cell went: by part and by operator, traced, or else predicted."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from workbench.record import Record

COLUMNS = ["by", "name", "time_s", "flops", "bytes", "calls", "how"]
KINDS = ("part", "operator")
NUMBERS = ("time_s", "flops", "bytes", "calls")
TRACED, PREDICTED = "traced", "predicted"


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
        listed = _rows(record.details.get("operators"))
        rows = [_row("operator", row, "operator", PREDICTED) for row in listed]
        rows += [
            _row("part", row, "piece" if "piece" in row else "part", PREDICTED) for row in listed
        ]
        if not listed:
            rows = _modules(record.details.get("parts"))
    if not rows:
        return pd.DataFrame(columns=COLUMNS)
    frame = pd.DataFrame(rows, columns=COLUMNS)
    # An operator that two parts run has a row in each.
    summed = frame.groupby(["by", "name", "how"], sort=False)[list(NUMBERS)].sum(min_count=1)
    return summed.reset_index()[COLUMNS].sort_values("time_s", ascending=False, kind="stable")


def _rows(found: Any) -> Iterable[Mapping[str, Any]]:
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _row(by: str, row: Mapping[str, Any], name: str, how: str) -> dict[str, Any]:
    return {"by": by, "name": str(row.get(name, "other")), "how": how,
            **{each: _number(row.get(each)) for each in NUMBERS}}  # fmt: skip


def _modules(found: Any) -> list[dict[str, Any]]:
    """Tower, adapter and decoder of scope ``lvlm``, told apart before operators were."""
    if not isinstance(found, dict):
        return []
    return [
        {**_row("part", row, "", PREDICTED), "name": str(name)}
        for name, row in found.items()
        if isinstance(row, dict)
    ]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def trace_file(record: Record) -> str | None:
    """The bare name of the record's trace file; None where it has none, or names a path."""
    trace = record.details.get("trace")
    name = trace.get("file") if isinstance(trace, dict) else None
    if not isinstance(name, str) or not name or name.startswith(".") or set(name) & set("/\\\0"):
        return None
    return name
