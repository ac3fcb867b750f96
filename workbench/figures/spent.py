"""Where the time goes: one bar a system, stacked by part or by operator."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from workbench.figures.style import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    Theme,
    axis,
    figure,
    layout,
    plain,
    tint,
)
from workbench.vocabulary.units import quantity

LOOKS = {
    "V2V": (VERMILLION, ""),
    "T2V": (ORANGE, "/"),
    "T2T": (YELLOW, "\\"),
    "merge": (PURPLE, "x"),
    "attention": (VERMILLION, "."),
    "projections": (SKY, "/"),
    "MLP": (BLUE, ""),
    "norms": (GREEN, "."),
    "LM head": (PURPLE, ""),
    "loss": (PURPLE, "/"),
    "embedding": (SKY, "."),
    "tower": (GREEN, "/"),
    "adapter": (GREEN, "x"),
    "decoder": (BLUE, ""),
    "optimizer": (ORANGE, "x"),
    "other": (SKY, "-"),
}
"""A part's colour and hatching; operators take the spare ones in turn."""
SPARE = tuple(
    (color, hatch)
    for hatch in ("", "/", "x", ".")
    for color in (BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE, YELLOW)
)
ROW_HEIGHT, FRAME_HEIGHT, UNNAMED = 54, 150, 70
"""Pixels of a bar, of the frame about all of them, and of what of that is the legend's."""
ROOM = 1.2
"""The axis beyond the longest bar, for the seconds at its end."""
MOST = 12
"""Names that a legend has room for; the rest are one."""


def spent(
    rows: pd.DataFrame,
    theme: Theme,
    share: bool = False,
    colors: Mapping[str, str] | None = None,
) -> go.Figure:
    """``rows``: system, name, time_s of one |V|; a bar a system in the order that they come, its
    seconds at its end.

    With ``share`` every bar is as long as all of its time. ``colors`` by system are for bars of
    one part, which need no legend.
    """
    systems = list(dict.fromkeys(rows["system"]))
    names = _names(rows)
    grouped = rows.assign(name=rows["name"].where(rows["name"].isin(names), "other"))
    table = grouped.groupby(["system", "name"])["time_s"].sum().unstack().fillna(0.0)
    totals = table.sum(axis="columns")
    values = table.div(totals.where(totals > 0), axis="index") * 100 if share else table
    labels = [plain(name) for name in systems]
    traces = []
    for place, name in enumerate(names):
        color, hatch = LOOKS.get(name, SPARE[place % len(SPARE)])
        color = theme.shown(color)
        paints = [theme.shown(colors[system]) for system in systems] if colors else color
        words = [
            f"<b>{plain(name)}</b><br>{quantity(table.loc[system, name], 's')}"
            f", {table.loc[system, name] / totals[system]:.1%} of {quantity(totals[system], 's')}"
            if totals[system]
            else plain(name)
            for system in systems
        ]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "y": labels,
                "name": plain(name),
                "x": [values.loc[system, name] for system in systems],
                "marker": {
                    "color": paints,
                    "line": {"width": 1, "color": theme.paper},
                    "pattern": {}
                    if colors
                    else {
                        "shape": hatch,
                        "fgcolor": theme.paper,
                        "size": 7,
                        "solidity": 0.25,
                        "bgcolor": tint(color, 0.9),
                    },
                },
                "customdata": words,
                "hovertemplate": "%{customdata}<extra></extra>",
            }
        )
    ends = [
        {
            "text": quantity(totals[system], "s"),
            "x": values.loc[system].sum(),
            "y": label,
            "xanchor": "left",
            "xshift": 4,
            "showarrow": False,
        }
        for system, label in zip(systems, labels, strict=True)
    ]
    longest = float(values.sum(axis="columns").max()) or 1.0
    look = {**_layout(theme, labels, share, longest), "annotations": ends}
    if colors:
        look |= {"showlegend": False, "height": look["height"] - UNNAMED}
        look["margin"] = {**look["margin"], "b": look["margin"]["b"] - UNNAMED}
    return figure(traces, look)


def _names(rows: pd.DataFrame) -> list[str]:
    """Parts in the order of the layer, then operators by their time; ``other`` last."""
    by_time = rows.groupby("name")["time_s"].sum().sort_values(ascending=False)
    names = [str(name) for name in by_time.index if name != "other"][:MOST]
    order = list(LOOKS)
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    return [*names, "other"] if len(names) < len(by_time) else names


def _layout(theme: Theme, labels: Sequence[str], share: bool, longest: float) -> dict[str, Any]:
    inner = ROW_HEIGHT * len(labels)
    legend = {
        "orientation": "h",
        "x": 0,
        "xanchor": "left",
        "y": -66 / inner,
        "yanchor": "top",
        "font": {"size": 14},
        "traceorder": "normal",
    }
    return layout(
        theme,
        height=inner + FRAME_HEIGHT,
        barmode="stack",
        legend=legend,
        margin={"l": 64, "r": 16, "t": 16, "b": FRAME_HEIGHT - 16},
        xaxis=axis(
            theme,
            "% of the iteration" if share else "seconds",
            tickformat=",.4~g",
            range=[0, ROOM * longest],
        ),
        yaxis=axis(
            theme,
            "",
            type="category",
            automargin=True,
            showgrid=False,
            categoryorder="array",
            categoryarray=list(labels)[::-1],
        ),
    )
