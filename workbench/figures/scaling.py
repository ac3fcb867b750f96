"""|V| against FLOPs, memory and seconds, one panel a metric, with the fitted curves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.analysis import host_bound, marks, short_names, together
from workbench.figures.axes import TOKENS, Axes, Reading
from workbench.figures.line_ends import MARGIN, MOST_BESIDE, Room, line_ends
from workbench.figures.lines import Crossing, Curve, Line
from workbench.figures.panel import CROSSING, Panel
from workbench.figures.style import (
    DASHES,
    FAILURES,
    Look,
    Theme,
    figure,
    in_order,
    layout,
    legend_height,
    place_names,
    plain,
)

SCALING_METRICS = ("flops", "peak_bytes", "time_s")
LOG_LOG = Axes()
HOST_BOUND = "seconds of the host"
"""Of hollow points of measured lines, in the legend."""
GAP = 0.075
"""Between two panels, as a share of the figure's width."""
ACROSS, ROW_GAP, MULTIPLE_HEIGHT = 3, 0.24, 300
"""Small multiples: in a row, between rows as a share of the height, pixels of a row."""
BESIDE_OTHERS = 3
"""Steps between labels of |V| in one of several panels, which stand upright at 1024 pixels."""
HEIGHT = 322
"""Pixels of a row of panels."""
LEAST_ALONE, LEAST = 400, 600
"""Pixels that a panel alone and several together are wide at least where names stand at the ends
of lines: narrower pages leave them out."""
MARGINS, LEGEND_BELOW = 148, 94
"""Pixels above and below the panels, and from them to the legend."""

COLUMNS = (
    "series",
    "source",
    "device",
    "attention",
    "kernel",
    "status",
    "error",
    "model",
    "scope",
    "pass",
    "dtype",
    "num_visual",
    "num_text",
    "batch",
    "num_samples",
    "time_q1_s",
    "time_q3_s",
    "flags",
)


def scaling(
    frame: pd.DataFrame,
    curves: pd.DataFrame,
    looks: Mapping[str, Look],
    theme: Theme,
    metrics: Sequence[str] = SCALING_METRICS,
    axes: Axes = LOG_LOG,
    capacities: Mapping[str, int] | None = None,
    reading: Reading = TOKENS,
    crossings: Sequence[Crossing] = (),
) -> go.Figure:
    """One panel a metric, side by side, over |V|.

    ``frame``: the store's columns and ``series``, the name of each line, for one subject.
    ``curves``: series, source, device, metric, num_visual, value, low, high, in base units.
    ``reading``: the unit of the axis of |V|. ``capacities``: bytes by device, drawn into the panel
    of ``peak_bytes``. A cell that failed stands on a strip above the panel, for it has no value; a
    predicted one beyond the card's memory keeps its value and is crossed. ``crossings``: where a
    system's curve becomes lower than a baseline's.
    """
    # Whose seconds they are shows in columns that no panel draws.
    rows = frame.assign(host_bound=host_bound(frame))
    lines = _lines(rows[[*COLUMNS, "host_bound", *metrics]], looks, theme, _strokes(frame))
    fitted = _curves(curves)
    width = (1 - GAP * (len(metrics) - 1)) / len(metrics)
    panels = []
    for place, metric in enumerate(metrics):
        start = place * (width + GAP)
        panel = Panel(
            place + 1,
            metric,
            theme,
            axes,
            (start, min(start + width, 1.0)),
            labels=6 if len(metrics) == 1 else BESIDE_OTHERS,
            reading=reading,
        )
        _fill(panel, lines, fitted, capacities or {})
        for crossing in crossings:
            key = (metric, crossing.series, crossing.source, crossing.device)
            line = next((each for each in lines if _key(metric, each) == key), None)
            if crossing.metric == metric and line is not None and key in fitted:
                panel.cross(line, fitted[key], crossing)
        panels.append(panel)
    margin = _name_ends(panels, lines, theme)
    legend = _legend(lines, place_names(frame), theme)
    if any(trace.get("name") == CROSSING for panel in panels for trace in panel.traces):
        ring = {"symbol": "circle-open", "size": 14, "color": theme.ink, "line": {"width": 2}}
        legend.append(
            {
                "type": "scatter",
                "x": [None],
                "y": [None],
                "mode": "markers",
                "name": CROSSING,
                "legendgroup": CROSSING,
                "marker": ring,
            }
        )
    return _figure(panels, legend, theme, margin=margin)


def multiples(
    frame: pd.DataFrame,
    curves: pd.DataFrame,
    looks: Mapping[str, Look],
    theme: Theme,
    metric: str,
    axes: Axes = LOG_LOG,
    capacities: Mapping[str, int] | None = None,
    reading: Reading = TOKENS,
) -> go.Figure:
    """One metric, one panel a model, in rows of three; ``frame`` and ``curves`` name the model."""
    models = sorted(frame["model"].unique())
    across = min(len(models), ACROSS)
    down = math.ceil(len(models) / across)
    width, height = (1 - GAP * (across - 1)) / across, (1 - ROW_GAP * (down - 1)) / down
    strokes, rows = _strokes(frame), frame.assign(host_bound=host_bound(frame))
    panels, drawn = [], []
    for place, model in enumerate(models):
        row, column = divmod(place, across)
        left, top = column * (width + GAP), 1 - row * (height + ROW_GAP)
        panel = Panel(
            place + 1,
            metric,
            theme,
            axes,
            (left, min(left + width, 1.0)),
            labels=BESIDE_OTHERS,
            reading=reading,
            title=str(model),
            rows=(max(top - height, 0.0), top),
        )
        own = rows.loc[rows["model"] == model, [*COLUMNS, "host_bound", metric]]
        lines = _lines(own, looks, theme, strokes)
        _fill(panel, lines, _curves(curves[curves["model"] == model]), capacities or {})
        panels.append(panel)
        drawn += lines
    legend = _legend(drawn, place_names(frame), theme)
    return _figure(panels, legend, theme, MULTIPLE_HEIGHT * down)


def _key(metric: str, line: Line) -> tuple[str, str, str, str]:
    return metric, line.series, line.source, line.device


def _fill(
    panel: Panel,
    lines: Sequence[Line],
    fitted: Mapping[tuple[str, ...], Curve],
    capacities: Mapping[str, int],
) -> None:
    here = {line.device for line in lines}
    near = {name: size for name, size in capacities.items() if name in here}
    panel.frame_axes(lines, near if panel.metric == "peak_bytes" else {})
    for line in lines:
        panel.draw(line, fitted.get(_key(panel.metric, line)))


def _name_ends(panels: Sequence[Panel], lines: Sequence[Line], theme: Theme) -> float:
    """Names at the ends of the panels' lines; returns the margin that those of the last one need.

    In the others they stand where the panel itself has room for them.
    """
    short = short_names([line.series for line in lines])
    least, margin = LEAST_ALONE if len(panels) == 1 else LEAST, MARGIN
    for panel in panels:
        left, right = panel.domain
        room = Room(
            f"x{panel.suffix}",
            f"y{panel.suffix}",
            least * (right - left),
            HEIGHT,
            panel.top,
            MOST_BESIDE if panel is panels[-1] else 0.0,
        )
        names = line_ends(panel.strokes(lines, short), room, theme)
        panel.annotations += names.notes
        margin = names.margin
    return margin


def _figure(
    panels: Sequence[Panel],
    legend: list[dict[str, Any]],
    theme: Theme,
    height: int = HEIGHT,
    margin: float = MARGIN,
) -> go.Figure:
    """``height`` is that of the panels alone, ``margin`` the one at the right."""
    rows = legend_height(entry["name"] for entry in legend)
    look = layout(theme, height=height + MARGINS + rows)
    look["margin"] = {**look["margin"], "r": margin}
    look["legend"] = {**look["legend"], "y": -LEGEND_BELOW / height}
    return figure(
        [trace for panel in panels for trace in panel.traces] + legend,
        {
            **look,
            "annotations": [each for panel in panels for each in panel.annotations],
            "shapes": [each for panel in panels for each in panel.shapes],
            **{f"xaxis{panel.suffix}": panel.x_axis for panel in panels},
            **{f"yaxis{panel.suffix}": panel.y_axis for panel in panels},
        },
    )


def _strokes(frame: pd.DataFrame) -> dict[tuple[str, str], str]:
    """A stroke for each source and device."""
    strokes: dict[tuple[str, str], str] = {}
    for source, devices in frame.groupby("source")["device"].unique().items():
        kinds = DASHES[str(source)]
        for place, device in enumerate(sorted(devices)):
            strokes[str(source), device] = kinds[place % len(kinds)]
    return strokes


def _lines(
    frame: pd.DataFrame,
    looks: Mapping[str, Look],
    theme: Theme,
    strokes: Mapping[tuple[str, str], str],
) -> list[Line]:
    """The lines of the frame, baselines first."""
    order = {name: place for place, name in enumerate(in_order(frame))}
    by_line: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in frame.sort_values("num_visual", kind="stable").to_dict("records"):
        facts = {str(name): value for name, value in row.items()}
        by_line.setdefault((row["series"], row["source"], row["device"]), []).append(facts)
    keys = sorted(by_line, key=lambda key: (order[key[0]], key[1:]))
    return [
        Line(
            series,
            source,
            device,
            _on_theme(looks[series], theme),
            strokes[source, device],
            by_line[series, source, device],
        )
        for series, source, device in keys
    ]


def _on_theme(look: Look, theme: Theme) -> Look:
    return Look(theme.shown(look.color), look.symbol)


def _curves(curves: pd.DataFrame) -> dict[tuple[str, ...], Curve]:
    groups = curves.groupby(["metric", "series", "source", "device"], sort=False)
    return {
        tuple(map(str, key)): Curve(*rows.to_numpy(dtype=np.float64).T)
        for key, rows in groups[["num_visual", "value", "low", "high"]]
    }


def _legend(
    lines: Sequence[Line], names: Mapping[tuple[str, str], str], theme: Theme
) -> list[dict[str, Any]]:
    """One entry a series, one a source and device, one a kind of failure: three separate codes."""
    entries = []

    def entry(name: str, group: str, mode: str, marker: Any, line: Any = None) -> None:
        entries.append(
            {
                "type": "scatter",
                "x": [None],
                "y": [None],
                "name": name,
                "mode": mode,
                "legendgroup": group,
                "marker": marker,
                "line": line,
            }
        )

    looks = {line.series: line.look for line in lines}
    short = short_names(list(looks))
    for series, look in looks.items():
        marker = {"color": look.color, "symbol": look.symbol, "size": 10}
        stroke = {"color": look.color, "width": 2.2}
        entry(plain(short[series]), plain(series), "markers+lines", marker, stroke)
    strokes = {(line.source, line.device): line.dash for line in lines}
    for (source, device), dash in sorted(strokes.items()):
        symbol = "circle" if source == "measured" else "circle-open"
        here = (line for line in lines if (line.source, line.device) == (source, device))
        mark_words = together(marks({"flags": row["flags"]}) for line in here for row in line.rows)
        words = f"{source}, {plain(names[source, device])}" + (
            f" ({mark_words})" if mark_words else ""
        )
        marker = {"color": theme.ink, "symbol": symbol, "size": 9}
        stroke = {"color": theme.ink, "width": 2, "dash": dash}
        entry(words, f"source {words}", "markers+lines", marker, stroke)
    if any(row["host_bound"] for line in lines for row in line.rows):
        marker = {"color": theme.ink, "symbol": "circle-open", "size": 9}
        entry(HOST_BOUND, "host bound", "markers", marker)
    statuses = {row["status"] for line in lines for row in line.rows}
    for status, (symbol, words) in FAILURES.items():
        if status in statuses:
            marker = {"color": theme.ink, "symbol": symbol, "size": 10}
            entry(words, f"status {status}", "markers", marker)
    return entries
