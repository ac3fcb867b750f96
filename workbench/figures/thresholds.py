"""Where each system runs out of memory: from the last |V| that ran to the first that did not."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from workbench.analysis import short_names
from workbench.figures.axes import VISUAL_TITLE, visual_axis
from workbench.figures.style import Look, Theme, axis, figure, in_order, layout, plain, tint

ROOM = 0.06
"""Beside the first and the last point, as a share of the axis: for their marks."""
ROW_HEIGHT, FRAME_HEIGHT = 56, 120
ABOVE = 15
"""Pixels from a row's middle up to its words: beside the axis they would take a phone's width."""


def thresholds(limits: pd.DataFrame, looks: Mapping[str, Look], theme: Theme) -> go.Figure:
    """One row a line of ``analysis.limits``, grouped by source and device, the furthest on top; a
    CPU's, which are a check, come last.

    The bar goes from the largest |V| that ran to the smallest that ran out of memory; a row
    without such an end has an arrow, for its limit lies beyond the sweep.
    """
    order = {name: place for place, name in enumerate(in_order(limits))}
    rows = sorted(
        limits.to_dict("records"),
        key=lambda row: (
            row["device"] == "cpu",
            row["source"],
            row["device"],
            -_ran(row),
            order[row["series"]],
        ),
    )
    short = short_names([str(row["series"]) for row in rows])
    alike = len({(row["source"], row["device"]) for row in rows}) == 1
    names = [
        plain(short[row["series"]])
        + ("" if alike else f"  <i>{row['source']}, {plain(row['device'])}</i>")
        for row in rows
    ]
    ends = [v for r in rows for v in (r["max_visual"], r["fails_at"]) if not pd.isna(v) and v > 0]
    traces = []
    for name, row in zip(names, rows, strict=True):
        look = looks[row["series"]]
        traces += _row(name, row, theme.shown(look.color), theme)
    return figure(
        traces,
        layout(
            theme,
            height=FRAME_HEIGHT + ROW_HEIGHT * len(rows),
            showlegend=False,
            xaxis=axis(theme, VISUAL_TITLE, **_with_room(visual_axis(ends or [1], True, 5))),
            yaxis=axis(
                theme,
                "",
                type="category",
                showgrid=False,
                showticklabels=False,
                ticks="",
                categoryorder="array",
                categoryarray=names[::-1],
            ),
            margin={"l": 16, "r": 16, "t": 32, "b": 56},
            annotations=[
                {
                    "text": f"{name}   <b>{_reach(row)}</b>",
                    "x": 0.01,
                    "xref": "x domain",
                    "y": name,
                    "yref": "y",
                    "xanchor": "left",
                    "yanchor": "bottom",
                    "yshift": ABOVE - 8,
                    "showarrow": False,
                    "font": {"size": 13, "color": theme.ink},
                    "bgcolor": tint(theme.paper, 0.75),
                }
                for name, row in zip(names, rows, strict=True)
            ],
        ),
    )


def _ran(row: Mapping[Any, Any]) -> int:
    """The largest |V| that ran, 0 where nothing did."""
    return 0 if pd.isna(row["max_visual"]) else int(row["max_visual"])


def _with_room(x_axis: dict[str, Any]) -> dict[str, Any]:
    """The axis with room for the marks at its ends."""
    low, high = x_axis["range"]
    room = ROOM * (high - low)
    return {**x_axis, "range": [low - room, high + room]}


def _reach(row: Mapping[Any, Any]) -> str:
    """'4,096 to 16,384', '65,536 and more', 'below 256', 'nothing ran'."""
    ran, failed = row["max_visual"], row["fails_at"]
    if pd.isna(ran):
        return "nothing ran" if pd.isna(failed) else f"below {failed:,}"
    return f"{ran:,} and more" if pd.isna(failed) else f"{ran:,} to {failed:,}"


def _row(name: str, row: Mapping[Any, Any], color: str, theme: Theme) -> list[dict[str, Any]]:
    ran, failed = row["max_visual"], row["fails_at"]
    words = _words(row)
    bars: list[dict[str, Any]] = []

    def add(x: list[Any], **more: Any) -> None:
        bars.append(
            {
                "type": "scatter",
                "x": x,
                "y": [name] * len(x),
                "hovertemplate": "%{customdata}<extra></extra>",
                "customdata": [words] * len(x),
                **more,
            }
        )

    if not pd.isna(ran) and not pd.isna(failed):
        add([ran, failed], mode="lines", line={"color": color, "width": 10})
    if not pd.isna(ran):
        symbol = "triangle-right" if pd.isna(failed) else "circle"
        add([ran], mode="markers", marker={"symbol": symbol, "size": 14, "color": color})
    if not pd.isna(failed):
        line = {"width": 1, "color": theme.paper}
        add(
            [failed],
            mode="markers",
            marker={"symbol": "x", "size": 11, "color": color, "line": line},
        )
    return bars


def _words(row: Mapping[Any, Any]) -> str:
    ran, failed = row["max_visual"], row["fails_at"]
    lines = [f"<b>{plain(row['series'])}</b>", f"{row['source']}, {plain(row['device'])}"]
    lines.append("no cell ran" if pd.isna(ran) else f"largest |V| that ran: {ran:,}")
    lines.append(
        "no cell ran out of memory" if pd.isna(failed) else f"out of memory at {failed:,}"
    )
    return "<br>".join(lines)
