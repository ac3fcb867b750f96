"""Validation: what was predicted beside what was measured, for cells that have both."""

import pandas as pd
import streamlit as st

from workbench.analysis.thin import thin
from workbench.aspects import ASPECTS
from workbench.dashboard.controls import several_systems, subject_of_many
from workbench.dashboard.reading import kinds_of
from workbench.dashboard.save import show, theme
from workbench.dashboard.shell import answer, data, say_thinned
from workbench.dashboard.tables import draw_table
from workbench.figures import agreement, in_order
from workbench.telling.text import listed, markdown
from workbench.telling.validation import TOLERANCE, both_sources, errors_by, with_both
from workbench.telling.view import same_card
from workbench.telling.words import spread
from workbench.vocabulary.calibration import calibration_for, packaged
from workbench.vocabulary.devices import DEVICES, Device
from workbench.vocabulary.metrics import METRICS
from workbench.vocabulary.units import digits, plural

EQUAL = 1e-5
"""Relative error that is none."""
ERRORS = ("median error", "worst error", "bias")
MEANING = "Error: predicted over measured, less 1. Bias: the median error with its sign."


def render() -> None:
    """Draw the page."""
    store = data()
    st.title(ASPECTS["validation"].question)
    both = store.once("with both", store.frame, with_both)
    both = subject_of_many(both, store.once("kinds", both, kinds_of))
    pairs = store.once("pairs of sources", both, lambda rows: both_sources(store.whole(rows)))
    if pairs.empty:
        _shipped(store.frame)
        st.info(
            "No cell of this store is both measured and predicted, so its own errors are unknown. "
            "`workbench validate STORE --keep` predicts every measured cell into the store, and "
            "both stand here."
        )
        return
    sentences = [_top(pairs, name) for name in ("time_s", "peak_bytes", "flops")]
    if (pairs["metric"] == "time_s").any():
        answer(sentences, _who(pairs))
    else:
        # Nothing was timed on the card that the predictions are for: their seconds come first.
        _shipped(store.frame)
        st.markdown(f"**A check on another device: {_who(pairs)}**")
        st.markdown(markdown(" ".join(filter(None, sentences))))
    there = set(pairs["series"].unique())
    order = [name for name in in_order(both) if name in there]
    systems = several_systems(order)
    pairs = pairs[pairs["series"].isin(systems)]
    title = "predicted over measured"
    matched = both[both["key"].isin(pairs["key"])]
    models = sorted(matched["model"].unique())
    counts = matched.loc[matched["source"] == "measured", "num_samples"]
    points = thin(pairs, ("ratio",), lines=("metric", "series"))
    show(agreement(points, store.looks, theme(), title, TOLERANCE), "validation", pairs)
    say_thinned(points, pairs)
    st.caption(
        f"{plural(pairs['key'].nunique(), 'cell')} of {markdown(listed(models))}: {_who(pairs)}, "
        f"{spread(counts, 'sample')} each. "
        f"The grey band is {TOLERANCE:.0%} about equal. "
        "FLOPs and bytes are compared whatever the device, for they depend on shapes; seconds "
        "only where the prediction is for the card that was measured. Bars: measured quartiles."
    )
    pairs = pairs.assign(metric=pairs["metric"].map(lambda name: METRICS[name].label))
    st.caption(MEANING)
    for field, title in (("series", "system"), ("num_visual", "|V|")):
        table = errors_by(pairs.sort_values(["metric", field]), field)
        cells = [
            (
                str(row["metric"]),
                f"{row[field]:,}" if field == "num_visual" else str(row[field]),
                f"{row['cells']:,}",
                *_errors(row["median"], row["worst"], row["bias"]),
            )
            for row in table.to_dict("records")
        ]
        draw_table(("metric", title, "cells", *ERRORS), cells)
    worst = pairs.assign(off=(pairs["ratio"] - 1).abs()).sort_values("off").iloc[-1]
    if worst["off"] > EQUAL:
        st.markdown(
            markdown(
                f"Furthest off: {worst['metric']} of {worst['series']} at |V| ="
                f" {worst['num_visual']:,}, {worst['ratio'] - 1:+.3%}."
            )
        )
    else:
        st.markdown(f"No figure is further off than {100 * EQUAL:g} %.")


def _top(pairs: pd.DataFrame, metric: str) -> str | None:
    """How far the predictions of a metric are off, at the median and at worst."""
    own = (pairs.loc[pairs["metric"] == metric, "ratio"] - 1).abs()
    if own.empty:
        return None
    name, cells = METRICS[metric].label, plural(len(own), "cell")
    if own.max() <= EQUAL:
        return f"{name}: predictions are exact, of {cells}."
    return (
        f"{name}: predictions are {_percent(own.median())} off at the median and"
        f" {_percent(own.max())} at worst, of {cells}."
    )


def _percent(share: float) -> str:
    return f"{digits(100 * share, 2)} %" if share > EQUAL else "0 %"


def _errors(median: float, worst: float, bias: float) -> tuple[str, str, str]:
    return f"{median:.2%}", f"{worst:.2%}", f"{bias:+.2%}"


def _shipped(frame: pd.DataFrame) -> None:
    """The errors of cells that the packaged calibrations did not see, of the cards at hand."""
    shipped = [entry for entry in DEVICES.values() if packaged(entry.name) is not None]
    here = [e for e in shipped if any(_is(e, str(device)) for device in frame["device"].unique())]
    for entry in here or shipped[:1]:
        calibration = calibration_for(entry.name)
        assert calibration is not None
        ways = calibration.held_out_by_kind
        records = {
            kind: (way, spread)
            for way in reversed(list(ways))
            for kind, spread in ways[way].items()
        }
        first = records.get("training step") or next(iter(records.values()))
        answer(
            [
                f"Seconds predicted for {entry.name} are {first[1].median:.1%} off at the"
                " median and"
                f" {first[1].worst:.1%} at worst for a training step, of"
                f" {first[1].num_cells} cells"
                " that the fit did not see."
            ]
        )
        cells = [
            (kind, f"{of.num_cells:,}", *_errors(of.median, of.worst, of.bias))
            for kind, (_, of) in records.items()
        ]
        st.markdown(f"**Errors of the packaged calibration of {markdown(entry.name)}**")
        draw_table(("kind of cell", "cells", *ERRORS), cells)
        st.caption(MEANING)


def _is(entry: Device, device: str) -> bool:
    return entry.name == device or same_card(entry, device)


def _who(pairs: pd.DataFrame) -> str:
    """'cpu measured, h100-80gb predicted'."""
    return markdown(listed(sorted(pairs["note"].unique()), "and"))
