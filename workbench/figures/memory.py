"""Where the bytes go: the peak by kind, stacked over |V|, one panel a system."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from workbench.analysis import short_names
from workbench.figures.axes import VISUAL_TITLE, visual_axis
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

GIB = 2.0**30
GAP = 0.03
ONE, THIN = 1.03, 0.012
"""Half the width of an only |V|: as a factor on a logarithmic axis, as a share of a linear one."""
UNSPLIT = "not split by kind"
"""Bytes of a peak whose record does not say what they are of."""
LETTERS, LINE = 100, 17
"""Letters of titles in a row of panels, as many as a narrow page has, and pixels of a line."""
FAR = 1.6
"""Times the capacity at which the axis ends."""
KINDS = {
    "weights": (BLUE, ""),
    "gradients": (PURPLE, "/"),
    "optimizer": (GREEN, "x"),
    "zero buffers": (PURPLE, "+"),
    "workspace": (SKY, "x"),
    "inputs": (SKY, "."),
    "offloaded": (GREEN, "|"),
    "activations": (ORANGE, "\\"),
    "logits": (YELLOW, "|"),
    "input gradients": (PURPLE, "."),
    "temporaries": (VERMILLION, "+"),
    "working": (VERMILLION, "-"),
    "ballast": (GREEN, "."),
    "rounding": (YELLOW, "x"),
}
"""Kind to colour and hatching, from the bottom of the stack up; other kinds follow."""
OTHER = (YELLOW, "+")
KIND_NAMES = {"working": "temporary tensors"}
"""Kinds whose name in a record is not the one that people read."""


def memory(
    kinds: pd.DataFrame, capacities: Mapping[str, int], theme: Theme, log_x: bool = True
) -> go.Figure:
    """``kinds``: system, source, device, num_visual, kind, bytes; one panel a system and place."""
    keys = ["system", "source", "device"]
    groups = list(kinds.groupby(keys, sort=False))
    names = sorted(kinds["kind"].unique(), key=lambda kind: (_place(kind), kind))
    width = (1 - GAP * (len(groups) - 1)) / len(groups)
    top = kinds.groupby([*keys, "num_visual"])["bytes"].sum().max() / GIB * 1.08
    limit = max((capacities.get(str(key[2]), 0) for key, _ in groups), default=0) / GIB
    if limit:
        # What is far beyond the card would flatten what fits into it.
        top = min(top, FAR * limit)
        # A capacity that is near gets room for its words below the top.
        top = max(top, 1.12 * limit) if top > limit / FAR else top
    short = short_names([str(key[0]) for key, _ in groups])
    alike = len({key[1:] for key, _ in groups}) == 1
    titles = {name: _folded(plain(words), LETTERS // len(groups)) for name, words in short.items()}
    parts: dict[str, Any] = {"annotations": [], "shapes": []}
    traces = []
    labels: set[str] = set()
    sizes = kinds["num_visual"].tolist()  # One range for all: a system that goes further shows.
    for column, ((system, source, device), rows) in enumerate(groups, start=1):
        suffix = "" if column == 1 else str(column)
        start = (column - 1) * (width + GAP)
        for part, own in enumerate(_parts(rows)):
            stack = f"{suffix or 1}-{part}"
            for kind in names:
                area = own[own["kind"] == kind].sort_values("num_visual")
                if len(area):
                    wide = 0 if log_x else THIN * max(sizes)
                    traces.append(
                        _area(kind, area, suffix, stack, theme, kind not in labels, wide)
                    )
                    labels.add(kind)
        parts[f"xaxis{suffix}"] = axis(
            theme,
            VISUAL_TITLE,
            domain=[start, min(start + width, 1.0)],
            anchor=f"y{suffix}",
            **visual_axis(sizes or [1], log_x, 4 if len(groups) > 1 else 10),
        )
        parts[f"yaxis{suffix}"] = axis(
            theme,
            "GiB" if column == 1 else "",
            anchor=f"x{suffix}",
            range=[0, top],
            showticklabels=column == 1,
            tickformat=",",
        )
        parts["annotations"].append(
            {
                "text": f"<b>{'<br>'.join(titles[str(system)])}</b>"
                + ("" if alike else f"<br>{source}, {plain(device)}"),
                "x": 0,
                "y": 1,
                "xref": f"x{suffix} domain",
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "bottom",
                "align": "left",
                "showarrow": False,
                "yshift": 6,
                "font": {"size": 13},
            }
        )
        _capacity(parts, suffix, capacities.get(str(device)), top, theme)
    lines = max((len(title) for title in titles.values()), default=1)
    margin = {"l": 64, "r": 16, "t": 64 + LINE * (lines - 1), "b": 56}
    return figure(traces, layout(theme, height=480, margin=margin, **parts))


def _folded(title: str, most: int) -> list[str]:
    """A system's name in lines of at most so many letters, where its options allow it."""
    lines: list[str] = []
    for option in title.split(" · "):
        if lines and len(lines[-1]) + len(option) + 3 <= most:
            lines[-1] += f" · {option}"
        else:
            lines.append(option)
    return lines


def _parts(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of one system, cut wherever its records begin to split the peak otherwise.

    A kind that a record does not tell is unknown, not 0, so no area may run down to it. In a
    record that splits its whole peak a kind that is missing is 0, and gets a row that says so.
    """
    parts: list[list[Any]] = []
    last = None
    for size, own in rows.groupby("num_visual"):
        kinds = tuple(sorted(own["kind"]))
        split = kinds if UNSPLIT in kinds else ()
        if not parts or split != last:
            parts.append([])
        parts[-1].append(size)
        last = split
    return [_filled(rows[rows["num_visual"].isin(part)]) for part in parts]


def _filled(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with one for every kind and |V|."""
    grid = pd.MultiIndex.from_product(
        [rows["num_visual"].unique(), rows["kind"].unique()], names=["num_visual", "kind"]
    )
    sizes = rows.groupby(["num_visual", "kind"])["bytes"].sum().reindex(grid, fill_value=0)
    return sizes.reset_index()


def _place(kind: str) -> int:
    return list(KINDS).index(kind) if kind in KINDS else len(KINDS)


def _area(
    kind: str,
    rows: pd.DataFrame,
    suffix: str,
    stack: str,
    theme: Theme,
    showlegend: bool,
    wide: float,
) -> dict[str, Any]:
    color, hatch = KINDS.get(kind, OTHER)
    # What is not known is grey: a colour of its own would be the loudest of all.
    color = theme.muted if kind == UNSPLIT else theme.shown(color)
    hatch = "" if kind == UNSPLIT else hatch
    name = plain(KIND_NAMES.get(kind, kind))
    at = rows["num_visual"].tolist()
    words = [
        f"{quantity(size, 'B')}<br>|V| = {visual:,}"
        for size, visual in zip(rows["bytes"], at, strict=True)
    ]
    if len(at) == 1:
        # An area over one |V| has no width, and nothing of it would be seen.
        rows = pd.concat([rows, rows])
        ends = [at[0] - wide, at[0] + wide] if wide else [at[0] / ONE, at[0] * ONE]
        at, words = ends, 2 * words
    return {
        "type": "scatter",
        "x": at,
        "y": (rows["bytes"] / GIB).tolist(),
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
        "stackgroup": stack,
        "name": name,
        "legendgroup": plain(kind),
        "showlegend": showlegend,
        "mode": "lines",
        "line": {"color": color, "width": 1.5},
        "fillcolor": tint(color, 0.55),
        "fillpattern": {
            "shape": hatch,
            "fgcolor": tint(color, 0.9),
            "size": 8,
            "solidity": 0.2,
            "bgcolor": tint(color, 0.45),
        },
        "customdata": words,
        "hovertemplate": f"<b>{name}</b> %{{customdata}}<extra></extra>",
    }


def _capacity(
    parts: dict[str, Any], suffix: str, capacity: int | None, top: float, theme: Theme
) -> None:
    if capacity is None or capacity / GIB > top:
        return
    y = capacity / GIB
    parts["shapes"].append(
        {
            "type": "line",
            "xref": f"x{suffix} domain",
            "x0": 0,
            "x1": 1,
            "yref": f"y{suffix}",
            "y0": y,
            "y1": y,
            "line": {"color": theme.ink, "width": 1.5, "dash": "dot"},
        }
    )
    parts["annotations"].append(
        {
            "text": f"capacity {y:.1f} GiB",
            "xref": f"x{suffix} domain",
            "yref": f"y{suffix}",
            "x": 0.02,
            "y": y,
            "xanchor": "left",
            "yanchor": "bottom",
            "showarrow": False,
            "font": {"size": 12, "color": theme.ink},
            "bgcolor": tint(theme.paper, 0.7),
        }
    )
