"""Thresholds: where each system runs out of memory, as a bracket, by kernel and device."""

import pandas as pd
import streamlit as st

from workbench.analysis import limits
from workbench.dashboard.answers import verdict_of
from workbench.dashboard.controls import subject
from workbench.dashboard.save import show, theme
from workbench.dashboard.shell import answer, data
from workbench.figures import thresholds
from workbench.report.sentences import at_place, place, places, reach_columns, reach_rows, reached
from workbench.report.text import markdown
from workbench.report.words import provenance, setting

TOLERANCE = 0.01
"""A threshold is known where its bracket is no wider than this share."""


def render() -> None:
    """Draw the page."""
    store = data()
    st.title("Where does the memory end?")
    rows = subject(store)
    found = limits(rows)
    if found[["max_visual", "fails_at"]].isna().all(axis=None):
        st.info("No cell here ran or ran out of memory. **Runs** lists each with its reason.")
        return
    source, device = places(rows)[0]
    verdict = verdict_of(store, rows, source, device)
    answer([verdict.reach() or reached(at_place(rows, source, device), place(source, device))])
    show(thresholds(found, store.looks, theme()), "thresholds", found)
    st.caption(
        markdown(
            f"{setting(rows)}. {' '.join(provenance(rows, bars=False))}"
            " A bar runs from the largest |V| that ran, or was predicted to fit, to"
            " the smallest that was out of memory; an arrow stands where the sweep"
            " ended first. Killed"
            " and failed cells are no thresholds."
        )
    )
    wide = _wide(found)
    if wide:
        st.info(
            f"{wide} of the brackets {'is' if wide == 1 else 'are'} wider than {TOLERANCE:.0%}, as"
            " a sweep leaves them;"
            " `workbench limit` narrows one by bisection."
        )
    for source, device in places(rows):
        here = rows[(rows["source"] == source) & (rows["device"] == device)]
        st.markdown(f"**{source.capitalize()}, {markdown(device)}**")
        table = pd.DataFrame(list(reach_rows(here)), columns=list(reach_columns(source)))
        st.dataframe(table, hide_index=True, width="stretch")


def _wide(found: pd.DataFrame) -> int:
    both = found.dropna(subset=["max_visual", "fails_at"])
    return int((both["fails_at"] > both["max_visual"] * (1 + TOLERANCE)).sum())
