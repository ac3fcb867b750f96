"""Attention systems side by side: how long an iteration takes, and what it needs of the card."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from workbench.figures.style import (
    BLUE,
    GREEN,
    LIGHT,
    PURPLE,
    VERMILLION,
    Theme,
    axis,
    figure,
    layout,
    plain,
)
from workbench.vocabulary.units import quantity

COLORS = {"exact": VERMILLION, "approximate": BLUE, "reducers": GREEN}
OTHER = PURPLE
"""Of a system without an entry, whose group nobody knows."""
PANELS = (("time_s", "s", "seconds an iteration"), ("peak_bytes", "B", "peak memory"))
ROW, FRAME = 26, 130
BARS = {"showticklabels": False, "anchor": "y"}
"""Every bar says its value."""
ROOM = 1.9
"""The axis beyond the longest bar, for the words at its end."""
BETWEEN = 0.04
"""Between two panels, as a share of the figure's width."""
LEGEND_BELOW = 44
"""Pixels from the bars to the legend."""


def systems_figure(
    systems: Sequence[dict[str, Any]],
    title: str,
    theme: Theme = LIGHT,
    panels: Sequence[tuple[str, str, str]] = PANELS,
) -> go.Figure:
    """A bar a system and metric, the cheapest on top; colour is the system's group.

    ``systems`` are documents of ``compare-systems``; one that is not served is left out, and one
    that does not fit is hollow. ``panels`` are those of PANELS to draw, side by side.
    """
    bars = [s for s in systems if s["metrics"].get("peak_bytes") is not None]
    order = sorted(bars, key=lambda s: s["metrics"].get("time_s") or s["metrics"]["peak_bytes"])
    groups = sorted({s["group"] for s in order}, key=[*COLORS, "unknown"].index)
    traces = [
        _bars([s for s in order if s["group"] == group], metric, unit, number, theme)
        for number, (metric, unit, _) in enumerate(panels, 1)
        for group in groups
    ]
    width = (1 - BETWEEN * (len(panels) - 1)) / len(panels)
    axes = {}
    for number, (metric, _, words) in enumerate(panels, 1):
        longest = max((s["metrics"].get(metric) or 0 for s in order), default=0) or 1
        left = (number - 1) * (width + BETWEEN)
        axes[f"xaxis{number}"] = axis(
            theme, words, **BARS, domain=[left, min(left + width, 1)], range=[0, ROOM * longest]
        )
    look = layout(
        theme,
        height=FRAME + ROW * len(order),
        title={"text": plain(title)},
        barmode="overlay",
        **axes,
        yaxis=axis(
            theme,
            "",
            type="category",
            automargin=True,
            categoryorder="array",
            categoryarray=[plain(s["label"]) for s in reversed(order)],
        ),
    )
    look["legend"] = {**look["legend"], "y": -LEGEND_BELOW / (ROW * max(len(order), 1))}
    return figure(traces, look)


def _bars(
    rows: Sequence[dict[str, Any]], metric: str, unit: str, number: int, theme: Theme
) -> dict[str, Any]:
    """One group's bars of one metric."""
    group = rows[0]["group"]
    color = theme.shown(COLORS.get(group, OTHER))
    fits = [s["status"] == "ok" for s in rows]
    values = [s["metrics"].get(metric) for s in rows]
    return {
        "type": "bar",
        "orientation": "h",
        "name": group,
        "legendgroup": group,
        "showlegend": number == 1,
        "xaxis": f"x{number}",
        "yaxis": "y",
        "y": [plain(s["label"]) for s in rows],
        "x": values,
        "text": [
            quantity(value, unit) + ("" if fit else ", does not fit")
            for value, fit in zip(values, fits, strict=True)
        ],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertext": [plain(f"{s['label']}: gives up {s['gives_up']}") for s in rows],
        "marker": {
            "color": [color if fit else theme.paper for fit in fits],
            "line": {"color": color, "width": 1.5},
        },
    }
