"""Seconds per iteration at equal |V|, and each system against both S-Attn baselines."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.analysis import host_bound, legend, letters, marks, short_names
from workbench.aspects import ASPECTS, Aspect
from workbench.figures import in_order, quantity
from workbench.telling.material import Material, Subject
from workbench.telling.page import Block, Table
from workbench.telling.sentences import (
    AGAINST,
    RAN,
    against_rows,
    at_place,
    pairs_at,
    place,
    places,
    shared_options,
)

MOST_ROWS = 40
SHOWN = ("num_visual", "series", "time_s", "status", "flags", "num_samples", "host_bound")
ENDED = {"oom": "out of memory", "timeout": "timed out", "error": "failed"}


def seconds_block(material: Material, subject: Subject) -> Block:
    """One table of seconds and one of ratios for each source and device."""
    tables: list[Table] = []
    for source, device in places(subject.rows):
        here = at_place(subject.rows, source, device)
        short = short_names(in_order(here))
        name = place(source, device) + shared_options(list(short))
        table = _seconds(here, name, short)
        if table is not None:
            tables.append(table)
        pairs = pairs_at(subject.pairs, source, device)
        # S-Attn under one kernel against another says less than what is compared with it.
        pairs.sort(key=lambda pair: bool(pair["time_s"]["attention"] == "s_attn"))
        against = against_rows(pairs, short)
        if against:
            tables.append(
                Table(
                    f"Against both S-Attn baselines, {name}",
                    AGAINST,
                    against,
                    f"Baseline over system, near the paper's |V| and at the largest that both"
                    f" {RAN[source]}; fused: the fastest kernel there.",
                )
            )
    missing = () if tables else ("No cell here has a time.",)
    return Block("Seconds per iteration at equal |V|", missing, tables=tuple(tables))


def _seconds(rows: pd.DataFrame, name: str, short: Mapping[str, str]) -> Table | None:
    timed = rows[rows["time_s"].notna() | (rows["status"] != "ok")]
    # Of a search for the largest |V|, every trial but the smallest that failed says nothing new.
    timed = timed[timed["time_s"].notna() | ~_beyond_first(timed)]
    if timed["time_s"].isna().all():
        return None
    systems = in_order(timed)
    tokens = sorted(timed["num_visual"].unique())
    rest, last = len(tokens) - MOST_ROWS, tokens[-MOST_ROWS:]
    table = timed.assign(host_bound=host_bound(timed))
    table = table.loc[table["num_visual"].isin(last), list(SHOWN)]
    records = table.to_dict("records")
    cells = {(row["num_visual"], row["series"]): _words(row) for row in records}
    meaning = legend(marks(row) for row in records if not pd.isna(row["time_s"]))
    return Table(
        f"Seconds per iteration, {name}",
        ("|V|", *(short[name] for name in systems)),
        tuple((f"{v:,}", *(cells.get((v, system), "") for system in systems)) for v in last),
        "Medians. An empty field was not asked for."
        + (f" {meaning}" if meaning else "")
        + (f" The {rest:,} smallest |V| are left out; data/ holds them." if rest > 0 else ""),
    )


def _beyond_first(rows: pd.DataFrame) -> pd.Series:
    """Where a system is out of memory at a larger |V| than its smallest."""
    failed = rows["status"] == "oom"
    first = rows["num_visual"].where(failed).groupby(rows["series"]).transform("min")
    return failed & (rows["num_visual"] > first)


def _words(row: Mapping[Any, Any]) -> str:
    status = ENDED.get(str(row["status"]), str(row["status"]))
    if pd.isna(row["time_s"]):
        return status if row["status"] != "ok" else "not timed"
    text = quantity(row["time_s"], "s") + letters(marks(row))
    return text if row["status"] == "ok" else f"{text}, but {status}"


ASPECTS.add(
    "seconds",
    Aspect(
        order=2,
        page="Seconds",
        question="How long does an iteration take at equal |V|?",
        icon="speed",
        block=seconds_block,
    ),
)
