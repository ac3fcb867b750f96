"""Memory: where the bytes of the peak go, by kind, against the card's capacity."""

import streamlit as st

from workbench.analysis import short_names
from workbench.analysis.thin import thin
from workbench.aspects import ASPECTS
from workbench.aspects.memory import largest_kind
from workbench.dashboard.answers import choose_place, verdict_of
from workbench.dashboard.controls import one, several_systems, subject
from workbench.dashboard.save import show, theme
from workbench.dashboard.shell import answer, data, say_thinned
from workbench.dashboard.tables import draw_table
from workbench.figures import memory
from workbench.telling.predicted import ASSUMED, STATES, assumed_rows, states_rows
from workbench.telling.sentences import at_place, place
from workbench.telling.text import markdown
from workbench.telling.verdict import first_system, telling_systems
from workbench.telling.view import memory_kinds
from workbench.telling.words import provenance, setting

MOST = 4
"""Panels that a screen has room for."""
PANEL_WEIGHT = 5
"""Bands that a peak is stacked of: a cell is that many points."""


def render() -> None:
    """Draw the page."""
    store = data()
    st.title(ASPECTS["memory"].question)
    rows = subject(store)
    top = st.container()
    with st.container(horizontal=True, gap="medium"):
        at = choose_place(rows)
        log_x = one("|V| axis", ("linear", "log"), "memory_x") == "log"
    where = place(*at)
    rows = at_place(rows, *at)
    every = telling_systems(rows)
    several = several_systems(every, MOST)
    systems = several[:MOST]
    rows = rows[rows["series"].isin(systems)]
    points = thin(rows, ("peak_bytes",), PANEL_WEIGHT)
    kinds = memory_kinds(points, store.details)
    if kinds.empty:
        st.info("No cell here has a peak. **Runs** lists each with its reason.")
        return
    with top:
        order = sorted(kinds["system"].unique(), key=lambda name: name != first_system(rows))
        short = short_names(every)
        most = [largest_kind(kinds[kinds["system"] == name], where, short[name]) for name in order]
        answer([verdict_of(store, rows, *at).peaks(), *most])
    if len(every) > len(systems):
        st.caption(
            f"{len(systems)} of {len(every)} systems are shown; pick others above, {MOST} at once."
        )
    near = store.capacities(rows)
    show(memory(kinds, near, theme(), log_x), "memory", kinds)
    say_thinned(points, rows)
    st.caption(
        markdown(
            f"{setting(rows)}, {where}. Bytes at the moment of the peak, device context excluded."
            f" {' '.join(provenance(rows, bars=False))}"
            " Where a record does not split its whole peak by kind, the rest is a band of its own."
        )
    )
    for title, columns, lines in (
        ("What the predictions assume", ASSUMED, assumed_rows(points, store.details)),
        ("Beside deepspeed's estimate", STATES, states_rows(points, store.details)),
    ):
        if lines:
            st.markdown(f"**{title}**")
            draw_table(columns, lines)
