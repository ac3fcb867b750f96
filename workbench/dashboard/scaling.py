"""Scaling: FLOPs, peak memory and seconds over |V|, with the fitted terms."""

import pandas as pd
import streamlit as st

from workbench.dashboard.controls import one, several, subject
from workbench.dashboard.shell import Data, data, say_thinned, show, theme
from workbench.dashboard.thin import thin
from workbench.figures import SCALING_METRICS, Axes, in_order, scaling
from workbench.report.fits import fit_rows
from workbench.report.sentences import answers
from workbench.report.text import markdown
from workbench.report.view import capacities
from workbench.report.words import figure_caption

METRICS = {
    "all three": SCALING_METRICS,
    "FLOPs": ("flops",),
    "memory": ("peak_bytes",),
    "time": ("time_s",),
}
BOTH = "both"


def render() -> None:
    """Draw the page."""
    store = data()
    st.title("How does it scale?")
    rows = subject(store.frame)
    metrics, rows, axes = _choose(rows)
    if rows[list(metrics)].isna().all(axis=None):
        st.info(
            "None of these cells has a figure: nothing ran. **Runs** lists each with its reason."
        )
        return
    fits, curves = store.fit(rows, SCALING_METRICS)
    near = capacities(rows, store.runs)
    drawn = thin(rows, metrics, len(metrics))
    show(scaling(drawn, curves, store.looks, theme(), metrics, axes, near), "scaling")
    say_thinned(drawn, rows)
    caption = figure_caption(rows, metrics, bool(curves["low"].notna().any()))
    st.caption(" ".join(markdown(sentence) for sentence in caption))
    _say(store, rows)
    _terms(fits[fits["metric"].isin(metrics)])


def _choose(rows: pd.DataFrame) -> tuple[tuple[str, ...], pd.DataFrame, Axes]:
    """The controls above the figure, and what they leave."""
    with st.container(horizontal=True, gap="medium"):
        metrics = METRICS[one("Show", list(METRICS), "metric")]
        sources = sorted(rows["source"].unique())
        source = one("Source", [BOTH, *sources], "source") if len(sources) > 1 else BOTH
        log_x = one("|V| axis", ("log", "linear"), "x") == "log"
        log_y = one("Value axis", ("log", "linear"), "y") == "log"
    rows = rows if source == BOTH else rows[rows["source"] == source]
    systems = several("Systems", in_order(rows), "systems")
    return metrics, rows[rows["series"].isin(systems)], Axes(log_x, log_y)


def _say(store: Data, rows: pd.DataFrame) -> None:
    st.subheader("In words")
    said = answers(rows, store.pairs(rows))
    st.markdown("\n".join(f"- {markdown(sentence)}" for sentence in said))


def _terms(fits: pd.DataFrame) -> None:
    st.subheader("The fitted terms: a + b·|V| + c·|V|²")
    columns, cells = fit_rows(fits)
    st.dataframe(
        pd.DataFrame(list(cells), columns=list(columns)),
        hide_index=True, width="stretch", height="content",
    )  # fmt: skip
    st.caption(
        "Least squares weighted by 1/y², so that every point counts by its relative error; in "
        "parentheses the 95 % interval. The shape is the smallest that the points do not refute."
    )
