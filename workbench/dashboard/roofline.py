"""Roofline: every cell under its card's ceilings."""

import pandas as pd
import streamlit as st

from workbench.dashboard.controls import one, several, subject
from workbench.dashboard.shell import data, say_thinned, show, theme
from workbench.dashboard.thin import thin
from workbench.devices import DEVICES
from workbench.figures import in_order, roofline
from workbench.report.sentences import at_place, place, places
from workbench.report.text import markdown
from workbench.report.view import same_card
from workbench.report.words import setting


def render() -> None:
    """Draw the page."""
    store = data()
    st.title("How close to the card's limits?")
    rows = subject(store.frame)
    here = {place(*each): each for each in places(rows)}
    where = one("Where", list(here), "where") if len(here) > 1 else next(iter(here))
    rows = at_place(rows, *here[where])
    systems = several("Systems", in_order(rows), "systems")
    rows = rows[rows["series"].isin(systems)]
    if (rows["time_s"].isna() | rows["bytes_moved"].isna()).all():
        st.info("No cell here has both a time and the bytes that it moved.")
        return
    ceilings, words = _ceilings(rows)
    drawn = thin(rows, ("time_s",))
    show(roofline(drawn, store.looks, theme(), ceilings), "roofline")
    say_thinned(drawn, rows)
    st.caption(markdown(
        f"{setting(rows)}, {where}. Points grow with |V|. FLOPs are those that the kernel has to"
        " do: all pairs for eager, the allowed ones for the others. Bytes are operator inputs read"
        f" once and outputs written once, unfused: a fused kernel moves fewer. {words}"
    ))  # fmt: skip


def _ceilings(rows: pd.DataFrame) -> tuple[tuple[float, float] | None, str]:
    """FLOP/s and bytes/s of the rows' device, and where they come from."""
    name, dtype = str(rows["device"].iloc[0]), str(rows["dtype"].iloc[0])
    entry = next((d for d in DEVICES.values() if d.name == name or same_card(d, name)), None)
    peak = None if entry is None else entry.peak(dtype)
    if entry is None or peak is None or entry.bandwidth_bytes_per_s is None:
        return None, f"No datasheet gives ceilings for {name} in {dtype}."
    return (peak, entry.bandwidth_bytes_per_s), (
        f"Ceilings: dense {dtype} peak and bandwidth of {entry.label}, from"
        f" {entry.sources['peak_flops']} and {entry.sources['bandwidth_bytes_per_s']}."
    )
