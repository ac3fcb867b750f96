"""Scaling: FLOPs, peak memory and seconds over |V|, with the fitted terms."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import streamlit as st

from workbench.analysis.thin import thin
from workbench.aspects import ASPECTS
from workbench.dashboard.answers import verdict_of
from workbench.dashboard.controls import one, several_systems, subject
from workbench.dashboard.crowd import GROUPS, MOST_LINES, draw_bars, group_of, quickest_first
from workbench.dashboard.save import show, theme
from workbench.dashboard.shell import answer, data, fold_comparisons, say_thinned
from workbench.dashboard.tables import draw_table
from workbench.dashboard.tokens import READINGS, eye, reading
from workbench.dashboard.width import is_wide
from workbench.figures import (
    SCALING_METRICS,
    TOKENS,
    Axes,
    Crossing,
    Reading,
    in_order,
    multiples,
    scaling,
)
from workbench.telling.fits import fit_rows
from workbench.telling.sentences import Pair, answers, at_place, places, shared_options
from workbench.telling.text import markdown
from workbench.telling.verdict import telling_systems
from workbench.telling.words import figure_caption
from workbench.vocabulary.metrics import METRICS as KNOWN

METRICS = {
    "all three": SCALING_METRICS,
    "FLOPs": ("flops",),
    "memory": ("peak_bytes",),
    "time": ("time_s",),
}
BOTH = "both"
AT_A_GLANCE = 20
"""Fitted terms that stand open on the page."""


def render() -> None:
    """Draw the page."""
    store = data()
    st.title(ASPECTS["scaling"].question)
    top = st.container()
    all_models = _all_models(store.frame)
    rows = subject(store, all_models)
    whole, (fits, curves) = rows, store.fit(rows, SCALING_METRICS)
    if not all_models:
        first = places(rows)[0]
        verdict = verdict_of(store, rows, *first)
        with top:
            answer([verdict.growth(at_place(fits, *first)), *verdict.turns()])
    metrics, rows, axes, unit, names = _choose(rows)
    if rows[list(metrics)].isna().all(axis=None):
        st.info(
            "None of these cells has a figure: nothing ran. **Runs** lists each with its reason."
        )
        return
    fits, curves = _of_lines(fits, rows), _of_lines(curves, rows)
    points = thin(rows, metrics, len(metrics))
    near = store.capacities(rows)
    if all_models:
        for metric in metrics:
            figure = multiples(points, curves, store.looks, theme(), metric, axes, near, unit)
            st.markdown(f"**{KNOWN[metric].label}**")
            show(figure, f"scaling-{metric.replace('_', '-')}", rows)
    else:
        crossings = _crossings(store.pairs(rows))
        figure = scaling(
            points, curves, store.looks, theme(), metrics, axes, near, unit, crossings
        )
        show(figure, "scaling", rows)
    say_thinned(points, rows)
    caption = figure_caption(rows, metrics, bool(curves["low"].notna().any()))
    st.caption(" ".join(markdown(sentence) for sentence in caption))
    if not all_models:
        if len(names) > MOST_LINES:
            draw_bars(at_place(whole, *first), names, *first)
        fold_comparisons(lambda: answers(rows, store.pairs(rows)))
        _terms(fits[fits["metric"].isin(metrics)], rows)


def _all_models(frame: pd.DataFrame) -> bool:
    """Whether every model has a panel of its own."""
    if frame["model"].nunique() < 2:
        return False
    return one("Models", ("one", "all, side by side"), "models") != "one"


def _of_lines(fitted: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """What was fitted to the lines that the rows are of."""
    here = [fitted[name].isin(rows[name].unique()) for name in ("series", "source")]
    return fitted[here[0] & here[1]]


class Choice(NamedTuple):
    """What the controls above the figure leave."""

    metrics: tuple[str, ...]
    rows: pd.DataFrame
    axes: Axes
    unit: Reading
    names: list[str]
    """The systems of the group, of which the rows may hold some."""


def _choose(rows: pd.DataFrame) -> Choice:
    """The controls above the figure."""
    with st.container(horizontal=True, gap="medium"):
        metrics = METRICS[one("Show", list(METRICS), "metric")]
        sources = sorted(rows["source"].unique())
        source = one("Source", [BOTH, *sources], "source") if len(sources) > 1 else BOTH
        log_x = one("|V| axis", ("log", "linear"), "x") == "log"
        log_y = one("Value axis", ("log", "linear"), "y") == "log"
        kind = one("|V| in", READINGS, "unit")
    unit = TOKENS
    if kind != READINGS[0]:
        with st.container(horizontal=True, gap="medium"):
            front_end = eye(str(rows["model"].iloc[0]), with_fps=kind == READINGS[2])
        unit = reading(kind, front_end)
    rows = rows if source == BOTH else rows[rows["source"] == source]
    names = _of_group(rows)
    systems = several_systems(names, MOST_LINES)
    own = rows[rows["series"].isin(systems)]
    return Choice(metrics, own, Axes(log_x, log_y), unit, names)


def _of_group(rows: pd.DataFrame) -> list[str]:
    """The systems of the group that the reader picked, those that every figure needs first.

    The S-Attn baselines stay in every group. A name without an entry is in ``all`` alone.
    """
    names = telling_systems(rows)
    if len(names) > MOST_LINES:
        names = quickest_first(at_place(rows, *places(rows)[0]))
    facts = rows.drop_duplicates("series").set_index("series")[["attention", "reduce"]]
    group = {name: group_of(*facts.loc[name]) for name in names}
    there = [each for each in GROUPS if each in group.values()]
    if len(there) < 2:
        return names
    picked = one("Group", ("all", *there), "group")
    return [
        name
        for name in names
        if picked in ("all", group[name])
        or (facts.loc[name, "attention"] == "s_attn" and group[name] != "reducers")
    ]


def _crossings(pairs: Sequence[Pair]) -> list[Crossing]:
    """Where a system's curve becomes lower than a baseline's."""
    rows = [row for pair in pairs for row in pair.values() if row["attention"] != "s_attn"]
    return [
        Crossing(
            row["metric"],
            row["series"],
            row["source"],
            row["device"],
            row["baseline_series"],
            float(row["crosses_at"]),
        )
        for row in rows
        if not pd.isna(row["crosses_at"])
    ]


def _terms(fits: pd.DataFrame, rows: pd.DataFrame) -> None:
    """The fitted terms in a table, made once it is open: at first where it is short."""
    options = markdown(shared_options(in_order(fits)))
    title = "The fitted terms: a + b·|V| + c·|V|²".replace("|", "\\|") + options
    short = len(fits) <= AT_A_GLANCE and is_wide()
    key = f"terms, open at first: {short}"
    with st.expander(f"**{title}**", expanded=short, key=key, on_change="rerun") as part:
        if part.open:
            columns, cells = fit_rows(fits, rows)
            draw_table(columns, cells)
            st.caption(
                "Least squares weighted by 1/y², so that every point counts by its relative"
                " error; in parentheses the 95 % interval of the term, then the marks of the"
                " records. The shape is the smallest that the points do not refute."
            )
