"""How far one number is from another, cell by cell: ratios with intervals, about a line of 1."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from workbench.figures.axes import VISUAL_TITLE, visual_axis
from workbench.figures.style import Look, Theme, axis, figure, layout, plain, tint
from workbench.vocabulary.metrics import METRICS

GAP = 0.075


def agreement(
    pairs: pd.DataFrame,
    looks: Mapping[str, Look],
    theme: Theme,
    title: str,
    tolerance: float,
    alike: bool = False,
) -> go.Figure:
    """``pairs``: metric, series, num_visual, ratio, low, high (NaN without an interval), note.

    One panel a metric, all on one scale if ``alike``; the shaded band is ``tolerance`` about 1.
    """
    metrics = list(dict.fromkeys(pairs["metric"]))
    width = (1 - GAP * (len(metrics) - 1)) / len(metrics)
    traces: list[dict[str, Any]] = []
    labels: set[str] = set()
    parts: dict[str, Any] = {"annotations": [], "shapes": []}
    for column, metric in enumerate(metrics, start=1):
        suffix, start = "" if column == 1 else str(column), (column - 1) * (width + GAP)
        rows = pairs[pairs["metric"] == metric]
        order = sorted(rows["series"].unique(), key=lambda name: (not name.startswith("S-"), name))
        for place, series in enumerate(order):
            own, first = rows[rows["series"] == series], series not in labels
            # Where all agree they lie on one another, and the smaller leave the larger in sight.
            size = 15 - 8 * place / max(len(order) - 1, 1)
            traces.append(_points(series, own, looks[series], suffix, theme, first, size))
            labels.add(series)
        scaled = pairs if alike else rows
        spread = [abs(v - 1) for name in ("ratio", "low", "high") for v in scaled[name].dropna()]
        reach = max(1.25 * max(spread, default=0.0), 2 * tolerance)
        parts[f"xaxis{suffix}"] = axis(
            theme,
            VISUAL_TITLE,
            domain=[start, min(start + width, 1.0)],
            anchor=f"y{suffix}",
            **visual_axis(list(rows["num_visual"]), True, 5 if len(metrics) > 1 else 10),
        )
        parts[f"yaxis{suffix}"] = axis(
            theme,
            title if column == 1 else "",
            anchor=f"x{suffix}",
            nticks=7,
            range=[max(1 - reach, 0), 1 + reach],
            tickformat=".4~g",
        )
        parts["annotations"].append(
            {
                "text": f"<b>{METRICS[metric].label}</b>",
                "x": 0,
                "y": 1,
                "yref": "paper",
                "xref": f"x{suffix} domain",
                "xanchor": "left",
                "yanchor": "bottom",
                "yshift": 8,
                "showarrow": False,
                "font": {"size": 15},
            }
        )
        parts["shapes"] += _equals(suffix, tolerance, theme)
    return figure(traces, layout(theme, height=430, **parts))


def _points(
    series: str,
    rows: pd.DataFrame,
    look: Look,
    suffix: str,
    theme: Theme,
    showlegend: bool,
    size: float,
) -> dict[str, Any]:
    color = theme.shown(look.color)
    up, down = (rows["high"] - rows["ratio"]).fillna(0), (rows["ratio"] - rows["low"]).fillna(0)
    columns = [rows[name].tolist() for name in ("num_visual", "ratio", "low", "high", "note")]
    words = [
        f"<b>{plain(series)}</b><br>|V| = {at:,}<br>ratio {ratio:.4g}"
        + ("" if pd.isna(low) else f" ({low:.4g} to {high:.4g})")
        + (f"<br>{plain(note)}" if note else "")
        for at, ratio, low, high, note in zip(*columns, strict=True)
    ]
    return {
        "type": "scatter",
        "x": rows["num_visual"].tolist(),
        "y": rows["ratio"].tolist(),
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
        "mode": "markers",
        "name": plain(series),
        "legendgroup": plain(series),
        "showlegend": showlegend,
        "marker": {
            "color": color,
            "symbol": look.symbol,
            "size": size,
            "line": {"width": 0.8, "color": theme.paper},
        },
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": up.tolist(),
            "arrayminus": down.tolist(),
            "thickness": 1.4,
            "width": 4,
        },
        "customdata": words,
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _equals(suffix: str, tolerance: float, theme: Theme) -> list[dict[str, Any]]:
    place = {"xref": f"x{suffix} domain", "x0": 0, "x1": 1, "yref": f"y{suffix}"}
    return [
        {
            "type": "rect",
            **place,
            "y0": 1 - tolerance,
            "y1": 1 + tolerance,
            "layer": "below",
            "fillcolor": tint(theme.muted, 0.14),
            "line": {"width": 0},
        },
        {
            "type": "line",
            **place,
            "y0": 1,
            "y1": 1,
            "line": {"color": theme.muted, "width": 1.5, "dash": "dot"},
        },
    ]
