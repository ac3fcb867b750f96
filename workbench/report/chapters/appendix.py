"""What ran out of memory or failed, what the metrics mean, and where the runs were made."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.figures import SCALING_METRICS, quantity
from workbench.telling import words
from workbench.telling.material import Material
from workbench.telling.page import Block, Section, Table
from workbench.vocabulary.metrics import METRICS

MOST_ENDINGS = 200
"""Rows of the table of cells that did not end well; of more only their number is said."""


def endings_chapter(material: Material) -> Section | None:
    """The cells without a result, with their reasons; None where every cell has one."""
    frame = material.frame
    rows = frame[frame["status"] != "ok"].sort_values(
        ["status", "source", "device", "model", "pass", "series", "num_visual"]
    )
    if rows.empty:
        return None
    lines = [
        (
            words.OUTCOMES[str(row["status"])],
            row["source"],
            row["device"],
            row["model"],
            row["scope"],
            row["pass"],
            row["series"],
            f"{row['num_visual']:,}",
            _reason(row),
        )
        for row in rows.head(MOST_ENDINGS).to_dict("records")
    ]
    rest = len(rows) - len(lines)
    columns = ("outcome", "source", "device", "model", "scope", "pass", "system", "|V|", "reason")
    table = Table("", columns, tuple(lines), f"And {rest:,} more." if rest else "")
    return Section(
        "Cells out of memory, failed or refused", "failures", (Block("", (), None, (table,)),)
    )


def _reason(row: Mapping[Any, Any]) -> str:
    if row["error"] is not None and not pd.isna(row["error"]):
        return str(row["error"])[:300]
    if row["status"] == "oom" and row["source"] == "predicted":
        return f"needs {quantity(row['peak_bytes'], 'B')}"
    return ""


def conventions_chapter(material: Material) -> Section:
    """Every metric that the store holds a value of: unit and convention."""
    frame = material.frame
    present = [name for name in METRICS if name in frame and frame[name].notna().any()]
    names = list(dict.fromkeys([*SCALING_METRICS, *present]))
    table = Table("", ("metric", "unit", "what it means"), tuple(words.conventions(names)))
    return Section("Conventions", "conventions", (Block("", (), None, (table,)),))


def environment_table(material: Material) -> Table:
    """Facts of each run's environment, a column a run."""
    runs = material.runs
    facts = [run.environment.model_dump() for run in runs]
    names = [
        name
        for name in dict.fromkeys(key for each in facts for key in each)
        if any(each.get(name) is not None for each in facts)
    ]
    rows = [
        ("records", *(f"{run.num_records:,}" for run in runs)),
        ("sweep", *(run.sweep for run in runs)),
        ("begun", *(run.started_at for run in runs)),
    ]
    rows += [(name, *(_fact(name, each.get(name)) for each in facts)) for name in names]
    return Table("", ("fact", *(run.id for run in runs)), tuple(rows))


def _fact(name: str, value: Any) -> str:
    if value is None:
        return "n/a"
    return quantity(value, "B") if name.endswith("_bytes") else str(value)
