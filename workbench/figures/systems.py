"""Attention systems side by side: how long an iteration takes, and what it needs of the card."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from workbench.figures.style import BLUE, LIGHT, VERMILLION, Theme, axis, figure, layout, plain
from workbench.vocabulary.units import quantity

COLORS = {"exact": VERMILLION, "approximate": BLUE}
PANELS = (("time_s", "s", "seconds an iteration"), ("peak_bytes", "B", "peak memory"))
ROW, FRAME = 26, 130
BARS = {"rangemode": "tozero", "showticklabels": False, "anchor": "y"}
"""Lengths are from 0, and every bar says its value."""


def systems_figure(
    systems: Sequence[dict[str, Any]], title: str, theme: Theme = LIGHT
) -> go.Figure:
    """A bar a system and metric, the cheapest on top; colour is exact or approximate.

    ``systems`` are documents of ``compare-systems``; one that is not served is left out, and one
    that does not fit is hollow.
    """
    told = [s for s in systems if s["metrics"].get("peak_bytes") is not None]
    order = sorted(told, key=lambda s: s["metrics"].get("time_s") or s["metrics"]["peak_bytes"])
    traces = []
    for number, (metric, unit, _) in enumerate(PANELS, 1):
        for group, color in COLORS.items():
            rows = [s for s in order if s["group"] == group]
            fits = [s["status"] == "ok" for s in rows]
            shown = theme.shown(color)
            traces.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": group,
                    "legendgroup": group,
                    "showlegend": number == 1,
                    "xaxis": f"x{number}",
                    "yaxis": "y",
                    "y": [plain(s["label"]) for s in rows],
                    "x": [s["metrics"].get(metric) for s in rows],
                    "text": [
                        quantity(s["metrics"].get(metric), unit)
                        + ("" if fit else ", does not fit")
                        for s, fit in zip(rows, fits, strict=True)
                    ],
                    "hovertext": [plain(f"{s['label']}: gives up {s['gives_up']}") for s in rows],
                    "marker": {
                        "color": [shown if fit else theme.paper for fit in fits],
                        "line": {"color": shown, "width": 1.5},
                    },
                }
            )
    return figure(
        traces,
        layout(
            theme,
            height=FRAME + ROW * len(order),
            title={"text": plain(title)},
            barmode="overlay",
            xaxis1=axis(theme, PANELS[0][2], **{**BARS, "domain": [0, 0.48]}),
            xaxis2=axis(theme, PANELS[1][2], **{**BARS, "domain": [0.52, 1]}),
            yaxis=axis(
                theme,
                "",
                type="category",
                automargin=True,
                categoryorder="array",
                categoryarray=[plain(s["label"]) for s in reversed(order)],
            ),
        ),
    )
