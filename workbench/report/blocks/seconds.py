"""Seconds per iteration at equal |V|, and each system against both S-Attn baselines."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.analysis import host_bound
from workbench.figures import in_order, quantity
from workbench.report.material import Material, Subject
from workbench.report.page import Block, Table
from workbench.report.sentences import (
    AGAINST,
    RAN,
    against_rows,
    at_place,
    pairs_at,
    place,
    places,
)

MOST_ROWS = 40
MARK = " (h)"
HOST = f" {MARK.strip()}: the card waited for the host, whose seconds these are."


def seconds_block(material: Material, subject: Subject) -> Block:
    """One table of seconds and one of ratios for each source and device."""
    tables: list[Table] = []
    for source, device in places(subject.rows):
        here, name = at_place(subject.rows, source, device), place(source, device)
        table = _seconds(here, name)
        if table is not None:
            tables.append(table)
        against = against_rows(pairs_at(subject.pairs, source, device))
        if against:
            tables.append(Table(
                f"Against both S-Attn baselines, {name}", AGAINST, against,
                f"Baseline over system, at the largest |V| that both {RAN[source]}.",
            ))  # fmt: skip
    missing = () if tables else ("No cell here has a time.",)
    return Block("Seconds per iteration at equal |V|", missing, tables=tuple(tables))


def _seconds(rows: pd.DataFrame, name: str) -> Table | None:
    timed = rows[rows["time_s"].notna() | (rows["status"] != "ok")]
    if timed["time_s"].isna().all():
        return None
    systems = in_order(timed)
    tokens = sorted(timed["num_visual"].unique())
    rest, last = len(tokens) - MOST_ROWS, tokens[-MOST_ROWS:]
    waited = host_bound(timed)
    told = timed.assign(waited=waited).loc[
        timed["num_visual"].isin(last), ["num_visual", "series", "time_s", "status", "waited"]
    ]
    cells = {(row["num_visual"], row["series"]): _words(row) for row in told.to_dict("records")}
    return Table(
        f"Seconds per iteration, {name}",
        ("|V|", *systems),
        tuple((f"{v:,}", *(cells.get((v, system), "") for system in systems)) for v in last),
        "Medians. An empty field was not asked for."
        + (HOST if waited.any() else "")
        + (f" The {rest:,} smallest |V| are left out; data/ holds them." if rest > 0 else ""),
    )


def _words(row: Mapping[Any, Any]) -> str:
    status = str(row["status"])
    if pd.isna(row["time_s"]):
        return status
    shown = quantity(row["time_s"], "s") + (MARK if row["waited"] else "")
    return shown if status == "ok" else f"({shown}, {status})"
