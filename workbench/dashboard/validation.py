"""Validation: what was predicted beside what was measured, for cells that have both."""

import pandas as pd
import streamlit as st

from workbench.analysis.thin import thin
from workbench.dashboard.controls import several, subject_of_many
from workbench.dashboard.reading import kinds_of
from workbench.dashboard.save import show, theme
from workbench.dashboard.shell import data, say_thinned
from workbench.figures import agreement, in_order
from workbench.record import METRICS
from workbench.report.text import listed, markdown
from workbench.report.validation import TOLERANCE, both_sources, errors_by, with_both
from workbench.report.words import plural, spread

EQUAL = 1e-5
"""Relative error that is none."""
PERCENT = {"median": "%.2f %%", "worst": "%.2f %%", "bias": "%+.2f %%"}


def render() -> None:
    """Draw the page."""
    store = data()
    st.title("Can the predictions be trusted?")
    both = store.once("with both", store.frame, with_both)
    both = subject_of_many(both, store.once("kinds", both, kinds_of))
    pairs = store.once("pairs of sources", both, lambda rows: both_sources(store.whole(rows)))
    if pairs.empty:
        st.info(
            "No cell of this store is both measured and predicted. Predict a measured one, with "
            "the same options and data type, and both stand here: **Runs** shows the command of "
            "each cell, and `workbench predict` takes the same options as `workbench measure`. "
            "`workbench validate STORE --keep` predicts every measured cell into the store."
        )
        return
    there = set(pairs["series"].unique())
    order = [name for name in in_order(both) if name in there]
    systems = several("Systems", order, "systems")
    pairs = pairs[pairs["series"].isin(systems)]
    title = "predicted over measured"
    shown = both[both["key"].isin(pairs["key"])]
    models = sorted(shown["model"].unique())
    taken = shown.loc[shown["source"] == "measured", "num_samples"]
    drawn = thin(pairs, ("ratio",), lines=("metric", "series"))
    show(agreement(drawn, store.looks, theme(), title, TOLERANCE), "validation", pairs)
    say_thinned(drawn, pairs)
    st.caption(
        f"{plural(pairs['key'].nunique(), 'cell')} of {markdown(listed(models))}: {_who(pairs)}, "
        f"{spread(taken, 'sample')} each. "
        f"The grey band is {TOLERANCE:.0%} about equal. "
        "FLOPs and bytes are compared whatever the device, for they depend on shapes; seconds "
        "only where the prediction is for the card that was measured. Bars: measured quartiles."
    )
    pairs = pairs.assign(metric=pairs["metric"].map(lambda name: METRICS[name].label))
    st.caption("Error: predicted over measured, less 1. Bias: the median error with its sign.")
    number = st.column_config.NumberColumn
    columns = {name: number(format=shown) for name, shown in PERCENT.items()}
    columns |= {"|V|": number(format="localized")}
    for field, title in (("series", "system"), ("num_visual", "|V|")):
        table = errors_by(pairs.sort_values(["metric", field]), field)
        table = table.rename(columns={field: title})
        table[list(PERCENT)] *= 100
        st.dataframe(table, hide_index=True, width="stretch", column_config=columns)
    worst = pairs.assign(off=(pairs["ratio"] - 1).abs()).sort_values("off").iloc[-1]
    if worst["off"] > EQUAL:
        st.markdown(markdown(
            f"Furthest off: {worst['metric']} of {worst['series']} at |V| ="
            f" {worst['num_visual']:,}, {worst['ratio'] - 1:+.3%}."
        ))  # fmt: skip
    else:
        st.markdown(f"No figure is further off than {100 * EQUAL:g} %.")


def _who(pairs: pd.DataFrame) -> str:
    """'cpu measured, h100-80gb predicted'."""
    return markdown(listed(sorted(pairs["note"].unique()), "and"))
