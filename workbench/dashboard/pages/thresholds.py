"""Thresholds: where each system runs out of memory, as a bracket, by kernel and device."""

import streamlit as st

from workbench.analysis import limits
from workbench.aspects import ASPECTS
from workbench.aspects.thresholds import MEANING, wide_brackets
from workbench.dashboard.answers import verdict_of
from workbench.dashboard.controls import subject
from workbench.dashboard.save import show, theme
from workbench.dashboard.shell import answer, data
from workbench.dashboard.tables import draw_table
from workbench.figures import in_order, thresholds
from workbench.telling.sentences import (
    at_place,
    place,
    places,
    reach_columns,
    reach_rows,
    reached,
    shared_options,
)
from workbench.telling.text import markdown
from workbench.telling.words import provenance, setting


def render() -> None:
    """Draw the page."""
    store = data()
    st.title(ASPECTS["thresholds"].question)
    rows = subject(store)
    brackets = limits(rows)
    if brackets[["max_visual", "fails_at"]].isna().all(axis=None):
        st.info("No cell here ran or ran out of memory. **Runs** lists each with its reason.")
        return
    source, device = places(rows)[0]
    verdict = verdict_of(store, rows, source, device)
    answer([verdict.reach() or reached(at_place(rows, source, device), place(source, device))])
    show(thresholds(brackets, store.looks, theme()), "thresholds", brackets)
    st.caption(markdown(f"{setting(rows)}. {' '.join(provenance(rows, bars=False))} {MEANING}"))
    if wide := wide_brackets(brackets):
        st.info(wide)
    for source, device in places(rows):
        here = rows[(rows["source"] == source) & (rows["device"] == device)]
        options = shared_options(in_order(here))
        st.markdown(f"**{source.capitalize()}, {markdown(device)}{markdown(options)}**")
        draw_table(reach_columns(source), reach_rows(here))
