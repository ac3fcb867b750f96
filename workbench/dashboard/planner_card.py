"""What the planner says of one system: its verdict, what makes it fit, the largest that fits."""

from concurrent.futures import Executor

import pandas as pd
import streamlit as st

from workbench.dashboard.plan import (
    Answer,
    Ask,
    Price,
    advice,
    asked_first,
    cheapest_helps,
    cost,
    fits,
    is_answered,
    peak_of,
)
from workbench.dashboard.tokens import Eye
from workbench.figures import quantity
from workbench.telling.measured_threshold import measured_threshold
from workbench.telling.text import markdown
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.units import plural

KINDS = {
    "working": "temporary tensors",
    "temporaries": "temporary tensors",
    "inputs": "the inputs",
}
"""Kinds of memory whose name alone says little."""
COUNT = 1_000
"""Iterations of which the cost is told."""


def draw_ways_to_fit(cell: Cell, answer: Answer, ask: Ask, pool: Executor) -> None:
    """The cheapest change that lets a cell fit; the others once the reader asks for them, for each
    is a prediction of its own.
    """
    st.markdown("**To make it fit**")
    place = st.container()
    name = f"ways {cell.attention} {cell.kernel}"
    with st.expander("Other ways", key=name, on_change="rerun") as others:
        if others.open or not cheapest_helps(cell, ask):
            for change in asked_first(cell):
                pool.submit(ask, "predict", change)
        lines = advice(cell, answer, ask)
        place.markdown(f"- {next(lines)}")
        if others.open:
            st.markdown("\n".join(f"- {line}" for line in lines) or "No other change alone does.")


def draw_verdict(cell: Cell, answer: Answer, price: Price | None) -> None:
    """Whether it fits, its peak and seconds, and with a price what COUNT iterations cost."""
    if not is_answered(answer):
        st.markdown(":orange-badge[:material/block: cannot run]")
        st.markdown(markdown(answer.get("error") or "no answer"))
        return
    st.markdown(
        ":green-badge[:material/check: fits]"
        if fits(answer)
        else ":red-badge[:material/close: does not fit]"
    )
    peak, capacity = peak_of(answer), answer["details"].get("capacity_bytes")
    if peak is not None and capacity:
        st.progress(min(peak / capacity, 1.0))
        st.markdown(f"peak **{quantity(peak, 'B')}** of {quantity(capacity, 'B')}")
    seconds = answer["metrics"].get("time_s")
    bound = any(str(flag).startswith("uncalibrated") for flag in answer["flags"])
    words = ("at least " if bound else "") if fits(answer) else "if it fitted, "
    st.markdown(
        f"{words}**{quantity(seconds, 's')}** for {plural(cell.batch, 'sample')}"
        + ("" if cell.world_size == 1 else " on each card")
    )
    paid = cost(seconds, price.amount, cell.world_size, COUNT) if price and fits(answer) else None
    if price and paid is not None:
        at_least = "at least " if bound else ""
        st.markdown(
            f"{at_least}**{paid:,.2f} {markdown(price.currency)}** for {COUNT:,} iterations on"
            f" {plural(cell.world_size, 'card')}"
        )


def draw_measured(records: pd.DataFrame | None, cell: Cell, device: str) -> None:
    """The threshold that the store at hand has of this very cell, where it was measured."""
    sentence = None if records is None else measured_threshold(records, cell, device)
    if sentence is not None:
        st.markdown(markdown(sentence))


def draw_largest(answer: Answer, seen: Eye) -> None:
    """The largest |V| that fits, as images or minutes too, and what fills the memory there."""
    if "error" in answer:
        st.caption(f"Largest that fits: {markdown(answer['error'])}")
    elif answer["max_visual"] is None:
        st.markdown("Nothing fits, not even without an image.")
    else:
        largest = answer["max_visual"]
        st.markdown(
            markdown(
                f"Largest that fits: {largest:,} visual tokens ({seen.said(largest)}),"
                " most of the memory there is"
                f" {KINDS.get(answer['stopped_by'], answer['stopped_by'])}"
            )
        )
