"""Every cell on its card's roofline: FLOP/s over FLOPs a byte, under the datasheet's lines."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import plotly.graph_objects as go

from workbench.analysis import host_bound, short_names
from workbench.figures.axes import log_ticks
from workbench.figures.line_ends import Room, Stroke, line_ends
from workbench.figures.lines import known
from workbench.figures.style import (
    Look,
    Theme,
    axis,
    figure,
    in_order,
    layout,
    legend_height,
    plain,
)
from workbench.vocabulary.units import quantity

TERA = 1e12
LEAST_WIDTH, HEIGHT = 400, 380
"""Pixels between the axes, at least."""
DASHES = {"datasheet": "dot", "measured": "solid"}


COLUMNS = (
    "series",
    "attention",
    "kernel",
    "source",
    "num_visual",
    "key",
    "bytes_moved",
    "time_s",
    "flags",
)


class Ceilings(NamedTuple):
    """The two lines of a roofline and where they are from."""

    name: str
    """``datasheet``, or ``measured``: a large matmul and a large copy on the machine itself."""
    flops_s: float
    bytes_s: float


def placed(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells that have a place on a roofline: those with FLOPs, a time and bytes."""
    return frame[(frame["time_s"] > 0) & (frame["bytes_moved"] > 0) & (_counted(frame) > 0)]


def _counted(frame: pd.DataFrame) -> pd.Series:
    """FLOPs that the kernel did: by the record's intensity, where it has one.

    In older records a fused kernel is taken to skip all pairs that the mask hides.
    """
    every = frame["kernel"].isin(("eager", "math"))
    counted = frame["flops_causal"].where(~every).fillna(frame["flops"])
    if "arithmetic_intensity" not in frame:
        return counted
    return (frame["arithmetic_intensity"] * frame["bytes_moved"]).fillna(counted)


def roofline(
    frame: pd.DataFrame,
    looks: Mapping[str, Look],
    theme: Theme,
    ceilings: Sequence[Ceilings],
) -> go.Figure:
    """``frame``: ``placed`` cells of one source and device, ``series`` and ``dtype`` set."""
    flops = _counted(frame)
    rows = frame[[*COLUMNS, *({"mfu"} & {*frame.columns})]].assign(
        flops=flops,
        intensity=flops / frame["bytes_moved"],
        rate=flops / frame["time_s"] / TERA,
    )
    short = short_names(in_order(rows))
    traces = [
        _points(short[series], rows[rows["series"] == series], looks[series], theme)
        for series in in_order(rows)
    ]
    low, high = rows["intensity"].min() / 2, rows["intensity"].max() * 2
    for each in ceilings:
        ridge = each.flops_s / each.bytes_s
        low, high = min(low, ridge / 4), max(high, ridge * 4)
    for each in ceilings:
        peak, bandwidth = each.flops_s, each.bytes_s
        large = bandwidth >= TERA
        rate = f"{bandwidth / (TERA if large else 1e9):.3g} {'TB' if large else 'GB'}/s"
        speed = f"{quantity(peak, 'FLOP')}/s, {rate}"
        traces.append(
            {
                "type": "scatter",
                "x": [low, peak / bandwidth, high],
                "mode": "lines",
                "hoverinfo": "skip",
                "y": [low * bandwidth / TERA, peak / TERA, peak / TERA],
                "name": f"{each.name}: {speed}",
                "line": {"color": theme.ink, "width": 2, "dash": DASHES.get(each.name, "dot")},
            }
        )
    heights_drawn = [v for trace in traces for v in trace["y"] if v > 0]
    widths = [math.log10(low), math.log10(high)]
    heights = [math.log10(min(heights_drawn)) - 0.1, math.log10(max(heights_drawn)) + 0.1]
    names = line_ends(
        [_stroke(trace, widths, heights) for trace in traces],
        Room("x", "y", LEAST_WIDTH, HEIGHT),
        theme,
    )
    entries = legend_height(trace["name"] for trace in traces)
    look = layout(theme)
    return figure(
        traces,
        layout(
            theme,
            height=520 + entries,
            margin={**look["margin"], "r": names.margin},
            annotations=names.notes,
            xaxis=axis(
                theme, "FLOPs a byte moved", type="log", range=widths, **log_ticks(*widths)
            ),
            yaxis=axis(theme, "TFLOP/s", type="log", range=heights, **log_ticks(*heights)),
        ),
    )


def _stroke(trace: dict[str, Any], widths: list[float], heights: list[float]) -> Stroke:
    """A trace as the names at line ends see it: a ceiling has none, and is not to be covered."""
    points = [(math.log10(x), math.log10(y)) for x, y in zip(trace["x"], trace["y"], strict=True)]
    shares = [
        ((x - widths[0]) / (widths[1] - widths[0]), (y - heights[0]) / (heights[1] - heights[0]))
        for x, y in points
    ]
    if "marker" not in trace:
        return Stroke(shares)
    return Stroke(shares, trace["name"], trace["marker"]["color"], points[-1])


def _points(series: str, rows: pd.DataFrame, look: Look, theme: Theme) -> dict[str, Any]:
    rows = rows.sort_values("num_visual")
    color = theme.shown(look.color)
    # The way from few tokens to many: small points first.
    spread = max(math.log2(max(rows["num_visual"].max(), 2)), 1)
    sizes = [7 + 9 * math.log2(max(v, 1)) / spread for v in rows["num_visual"]]
    # Hollow: predicted, or the seconds are those of a host that the card waited for.
    hollow = host_bound(rows) | (rows["source"] != "measured").to_numpy()
    symbols = [look.symbol + ("-open" if each else "") for each in hollow]
    return {
        "type": "scatter",
        "x": rows["intensity"].tolist(),
        "y": rows["rate"].tolist(),
        "mode": "lines+markers",
        "name": plain(series),
        "line": {"color": color, "width": 1},
        # What a point says, and what a click on it asks for.
        "customdata": [[_words(r), r["key"]] for r in rows.to_dict("records")],
        "hovertemplate": "%{customdata[0]}<extra></extra>",
        "marker": {
            "color": color,
            "symbol": symbols,
            "size": sizes,
            "line": {
                "width": [2 if each else 1.4 for each in hollow],
                "color": [color if each else theme.paper for each in hollow],
            },
        },
    }


def _words(row: Mapping[Any, Any]) -> str:
    lines = [
        f"<b>{plain(row['series'])}</b>",
        f"|V| = {row['num_visual']:,}",
        f"{row['intensity']:,.0f} FLOPs a byte",
        f"{row['rate']:,.1f} TFLOP/s",
        f"{quantity(row['flops'], 'FLOP')}, {quantity(row['bytes_moved'], 'B')} moved,"
        f" {quantity(row['time_s'], 's')}",
    ]
    if known(row.get("mfu")):
        lines.append(f"MFU {100 * row['mfu']:.1f} %")
    return "<br>".join(lines)
