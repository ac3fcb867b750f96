"""A figure for a screen that is narrower than the one it was made for."""

from textwrap import wrap
from typing import Any

import plotly.graph_objects as go

from workbench.figures.line_ends import without_line_ends
from workbench.figures.style import legend_height

PANEL, GAP, ENTRY = 270, 92, 24
"""Pixels of a panel, between two, and of an entry of the legend."""
LEGEND_BELOW = 66
"""Pixels from the last panel to the legend."""
LETTERS = 40
"""Characters of a line of words that a phone's width has room for."""
TABLET = 580
"""Pixels that a page has for a figure at least, where several panels still stand in a row."""


def num_columns(figure: go.Figure) -> int:
    """How many panels stand in a row."""
    axes = _axes(figure.layout.to_plotly_json())
    return max(len({domain[0] for domain, _ in axes.values()}), 1)


def for_tablet(figure: go.Figure) -> go.Figure:
    """The same panels in a row: names in the legend alone, which has the height that it takes."""
    narrow = without_line_ends(figure) if num_columns(figure) > 1 else figure
    names = [trace.name for trace in figure.data if trace.name and trace.showlegend is not False]
    more = legend_height(names, TABLET) - legend_height(names)
    if more and figure.layout.height:
        narrow = go.Figure(narrow)
        narrow.layout.height += more
    return narrow


def for_phone(figure: go.Figure) -> go.Figure:
    """The same traces with a small legend, and the panels of a row below one another."""
    narrow = go.Figure(without_line_ends(figure))
    narrow.update_layout(legend={"itemwidth": 30, "font": {"size": 11}})
    for trace in narrow.data:
        trace.name = trace.name and "<br>".join(wrap(trace.name, LETTERS))
    for note in narrow.layout.annotations:
        note.update(text=_in_two(note.text), align="left")
    if num_columns(figure) > 1:
        _stack(narrow)
    return narrow


def _in_two(text: str) -> str:
    """Words and the bold figure behind them, one below the other where a line cannot hold both."""
    words, apart, figure = text.partition("   <b>")
    long = len(text) - len("<b></b>") > LETTERS
    return f"{words}<br><b>{figure}" if apart and long else text


def _stack(narrow: go.Figure) -> None:
    axes = _axes(narrow.layout.to_plotly_json())
    names = sorted(axes, key=lambda name: (-axes[name][1], axes[name][0][0]))
    entries = sum(bool(trace.name) and trace.showlegend is not False for trace in narrow.data)
    whole = len(names) * (PANEL + GAP) - GAP
    margin = {**narrow.layout.margin.to_plotly_json(), "l": 64}
    tops: dict[str, float] = {}
    changes: dict[str, Any] = {}
    for row, name in enumerate(names):
        top = 1 - row * (PANEL + GAP) / whole
        changes[name] = {"domain": [0, 1]}
        upright = name.replace("x", "y", 1)
        changes[upright] = {"domain": [max(0.0, top - PANEL / whole), top], "showticklabels": True}
        tops[f"{name.replace('axis', '')} domain"] = top
    for note in narrow.layout.annotations:
        if note.yref == "paper" and note.xref in tops:
            note.y = tops[note.xref]
    narrow.update_layout(
        **changes,
        margin=margin,
        height=whole + margin.get("t", 48) + margin.get("b", 56) + ENTRY * entries,
        legend={"y": -LEGEND_BELOW / whole},
    )


def _axes(layout: dict[str, Any]) -> dict[str, tuple[tuple[float, float], float]]:
    """Each axis of |V|: its domain, and where the panel's lower edge is."""
    panels = {}
    for name, axis in layout.items():
        if name.startswith("xaxis") and axis.get("domain"):
            upright = layout.get(name.replace("x", "y", 1), {})
            panels[name] = (tuple(axis["domain"]), (upright.get("domain") or (0.0, 1.0))[0])
    return panels
