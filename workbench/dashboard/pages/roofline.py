"""Roofline: every cell under its card's ceilings."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from workbench.analysis.thin import thin
from workbench.aspects import ASPECTS
from workbench.aspects.roofline import MEANING, MISSING
from workbench.dashboard.answers import choose_place, verdict_of
from workbench.dashboard.controls import several_systems, subject
from workbench.dashboard.reading import Data
from workbench.dashboard.save import show, theme
from workbench.dashboard.shell import answer, data, say_thinned
from workbench.dashboard.tables import draw_table
from workbench.figures import Ceilings, placed, quantity, roofline
from workbench.telling.ceilings import ceilings, rates
from workbench.telling.sentences import at_place, place
from workbench.telling.spent import spent_of
from workbench.telling.text import markdown
from workbench.telling.verdict import telling_systems
from workbench.telling.view import identities
from workbench.telling.words import provenance, setting

OPERATORS = ("operator", "time", "share", "FLOPs", "bytes moved", "bound by", "calls")


def render() -> None:
    """Draw the page."""
    store = data()
    st.title(ASPECTS["roofline"].question)
    rows = subject(store)
    top = st.container()
    at = choose_place(rows)
    where = place(*at)
    rows = at_place(rows, *at)
    verdict = verdict_of(store, rows, *at)
    systems = several_systems(telling_systems(rows))
    rows = rows[rows["series"].isin(systems)]
    able = placed(rows)
    if able.empty:
        st.info(MISSING)
        return
    lines, words, source = ceilings(rows)
    with top:
        answer([verdict.utilization() or _closest(able, lines)])
    points = thin(able, ("time_s",))
    figure = roofline(points, store.looks, theme(), lines)
    clicked = show(figure, "roofline", rows, selects=True)
    say_thinned(points, able)
    st.caption(
        markdown(
            f"{setting(rows)}, {where}. {MEANING} {words} {' '.join(provenance(rows, bars=False))}"
        )
    )
    if source:
        with st.expander("Where the ceilings stand"):
            st.caption(markdown(source))
    _operators(store, rows, clicked)


def _closest(rows: pd.DataFrame, lines: Sequence[Ceilings]) -> str | None:
    """The cell that comes closest to the card's ceilings."""
    if not lines or rows["ceiling_fraction"].isna().all():
        return None
    best = rows.sort_values("ceiling_fraction", na_position="first").iloc[-1]
    return (
        f"{best['series']} at |V| = {best['num_visual']:,} reaches"
        f" {best['ceiling_fraction']:.0%} of what the measured ceilings allow."
    )


def _operators(store: Data, rows: pd.DataFrame, clicked: Sequence[Mapping[str, Any]]) -> None:
    """The operators of the point that was clicked, which the link then names."""
    keys = [str(point["customdata"][1]) for point in clicked if point.get("customdata")]
    if keys:
        st.query_params["cell"] = keys[0]
    own = rows[rows["key"] == st.query_params.get("cell")]
    if own.empty:
        st.caption("Click a point for its operators.")
        return
    row = own.iloc[-1]
    record = store.details.some(identities(own.tail(1)))[identities(own.tail(1))[0]]
    table = spent_of(record)
    table = table[table["by"] == "operator"]
    st.subheader(f"{markdown(row['series'])} at \\|V\\| = {row['num_visual']:,}")
    if table.empty:
        st.info("This record holds no operators: `workbench measure … --trace DIR` stores them.")
        return
    peak, bandwidth = rates(rows)
    whole = table["time_s"].sum()
    cells = [
        (
            str(each["name"]),
            quantity(each["time_s"], "s"),
            f"{each['time_s'] / whole:.1%}",
            quantity(each["flops"], "FLOP"),
            quantity(each["bytes"], "B"),
            _bound(each, peak, bandwidth),
            quantity(each["calls"], "1"),
        )
        for each in table.to_dict("records")
    ]
    draw_table(OPERATORS, cells)
    st.caption(
        f"As {table['how'].iloc[0]}. Of what was traced, the side of the ridge tells the bound."
    )


def _bound(row: Mapping[Any, Any], peak: float | None, bandwidth: float | None) -> str:
    """What the prediction says, else the side of the ridge."""
    if isinstance(row["bound"], str):
        return row["bound"]
    if not peak or not bandwidth or pd.isna(row["flops"]) or not row["bytes"]:
        return "unknown"
    return "compute" if row["flops"] / row["bytes"] > peak / bandwidth else "memory"
