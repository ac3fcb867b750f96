"""|V| against FLOPs, memory and seconds, one panel a metric, with the fitted curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.figures.panel import Axes, Line, Panel
from workbench.figures.style import DASHES, FAILURES, Look, Theme, in_order, layout, plain

SCALING_METRICS = ("flops", "peak_bytes", "time_s")
LOG_LOG = Axes()


def scaling(
    frame: pd.DataFrame,
    curves: pd.DataFrame,
    looks: Mapping[str, Look],
    theme: Theme,
    metrics: Sequence[str] = SCALING_METRICS,
    axes: Axes = LOG_LOG,
    capacities: Mapping[str, int] | None = None,
) -> go.Figure:
    """One panel a metric, side by side, over |V|.

    ``frame``: the store's columns and ``series``, the name of each line, for one subject.
    ``curves``: series, source, device, metric, num_visual, value, low, high, in base units.
    ``capacities``: bytes by device, drawn into the panel of ``peak_bytes``. A cell that failed
    stands on a strip above the panel, for it has no value; a predicted one beyond the card's
    memory keeps its value and is crossed.
    """
    figure = make_subplots(cols=len(metrics), horizontal_spacing=0.075)
    strokes = _strokes(frame)
    for column, metric in enumerate(metrics, start=1):
        panel = Panel(figure, column, metric, theme, axes, labels=10 if len(metrics) == 1 else 5)
        panel.frame_axes(frame, (capacities or {}) if metric == "peak_bytes" else {})
        for (series, source, device), rows in _groups(frame):
            look = Look(theme.shown(looks[str(series)].color), looks[str(series)].symbol)
            line = Line(str(series), look, str(source), strokes[source, device])
            fitted = curves[
                (curves["metric"] == metric)
                & (curves["series"] == series)
                & (curves["source"] == source)
                & (curves["device"] == device)
            ]
            panel.draw_curve(line, fitted)
            panel.draw_points(line, rows, joined=fitted.empty)
            panel.draw_failures(line, rows)
    _legend(figure, frame, looks, strokes, theme)
    figure.update_layout(layout(theme, height=470))
    return figure


def _groups(frame: pd.DataFrame) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    keys = ["series", "source", "device"]
    place = {name: at for at, name in enumerate(in_order(frame))}
    found = list(frame.groupby(keys))
    return sorted(found, key=lambda each: (place[each[0][0]], each[0]))


def _strokes(frame: pd.DataFrame) -> dict[tuple[str, str], str]:
    """A stroke for each (source, device): solid ones are measured, broken ones predicted."""
    found = {}
    for source, rows in frame.groupby("source"):
        kinds = DASHES[str(source)]
        for place, device in enumerate(sorted(rows["device"].unique())):
            found[str(source), str(device)] = kinds[place % len(kinds)]
    return found


def _legend(figure: go.Figure, frame: pd.DataFrame, looks: Mapping[str, Look],
            strokes: Mapping[tuple[str, str], str], theme: Theme) -> None:  # fmt: skip
    """One entry a series, one a source and device, one a kind of failure: three separate codes."""

    def entry(name: str, group: str, mode: str, **more: object) -> None:
        figure.add_trace(
            go.Scatter(x=[None], y=[None], name=name, legendgroup=group, mode=mode, **more),
            row=1, col=1,
        )  # fmt: skip

    for series in in_order(frame):
        look = Look(theme.shown(looks[series].color), looks[series].symbol)
        entry(plain(series), plain(series), "markers+lines",
              marker={"color": look.color, "symbol": look.symbol, "size": 10},
              line={"color": look.color, "width": 2.2})  # fmt: skip
    for (source, device), dash in sorted(strokes.items()):
        symbol = "circle" if source == "measured" else "circle-open"
        words = f"{source}, {plain(device)}"
        entry(words, f"source {words}", "markers+lines",
              marker={"color": theme.ink, "symbol": symbol, "size": 9},
              line={"color": theme.ink, "width": 2, "dash": dash})  # fmt: skip
    for status, (symbol, words) in FAILURES.items():
        if (frame["status"] == status).any():
            entry(words, f"status {status}", "markers",
                  marker={"color": theme.ink, "symbol": symbol, "size": 10})  # fmt: skip
