"""Memory: where the bytes of the peak go, by kind, against the card's capacity."""

import pandas as pd
import streamlit as st

from workbench.analysis.thin import thin
from workbench.dashboard.controls import one, several, subject
from workbench.dashboard.save import show, theme
from workbench.dashboard.shell import data, say_thinned
from workbench.figures import in_order, memory
from workbench.report.predicted import ASSUMED, STATES, assumed_rows, states_rows
from workbench.report.sentences import at_place, place, places
from workbench.report.text import markdown
from workbench.report.view import memory_kinds
from workbench.report.words import provenance, setting

MOST = 4
"""Panels that a screen has room for."""
PANEL_WEIGHT = 5
"""Bands that a peak is stacked of: a cell is that many points."""


def render() -> None:
    """Draw the page."""
    store = data()
    st.title("Where do the bytes go?")
    rows = subject(store)
    here = {place(*each): each for each in places(rows)}
    with st.container(horizontal=True, gap="medium"):
        where = one("Where", list(here), "where") if len(here) > 1 else next(iter(here))
        log_x = one("|V| axis", ("linear", "log"), "memory_x") == "log"
    rows = at_place(rows, *here[where])
    systems = several("Systems", in_order(rows), "systems")[:MOST]
    rows = rows[rows["series"].isin(systems)]
    drawn = thin(rows, ("peak_bytes",), PANEL_WEIGHT)
    kinds = memory_kinds(drawn, store.details)
    if kinds.empty:
        st.info("No cell here has a peak. **Runs** lists each with its reason.")
        return
    near = store.capacities(rows)
    show(memory(kinds, near, theme(), log_x), "memory", kinds)
    say_thinned(drawn, rows)
    st.caption(markdown(
        f"{setting(rows)}, {where}. Bytes at the moment of the peak, device context excluded."
        f" {' '.join(provenance(rows, bars=False))}"
        " Where a record does not split its whole peak by kind, the rest is a band of its own."
    ))  # fmt: skip
    for title, columns, said in (
        ("What the predictions assume", ASSUMED, assumed_rows(drawn, store.details)),
        ("Beside deepspeed's estimate", STATES, states_rows(drawn, store.details)),
    ):
        if said:
            st.markdown(f"**{title}**")
            st.dataframe(pd.DataFrame(list(said), columns=list(columns)), hide_index=True,
                         width="stretch")  # fmt: skip
