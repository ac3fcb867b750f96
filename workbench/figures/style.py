"""How figures look: colour is the system, shape the kernel, stroke and fill the source.

The colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart; shape and
stroke carry the same facts once more, so that a black-and-white print loses nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import product
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from workbench.analysis import CONDITIONS, kinds, systems_of
from workbench.vocabulary.cell import condition_words
from workbench.vocabulary.systems import entries

ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
COLORS = {
    "orange": ORANGE,
    "sky": SKY,
    "green": GREEN,
    "yellow": YELLOW,
    "blue": BLUE,
    "vermillion": VERMILLION,
    "purple": PURPLE,
}
"""By the names that ``systems.yaml`` calls them."""

PREFERRED = {
    (name, eager): COLORS[color]
    for name, each in entries()["attention"].items()
    for eager, color in zip((False, True), each.colors, strict=False)
}
"""(attention, whether its kernel is eager) to colour; others take the next free one."""

TEAL, WINE, OLIVE, ROSE = "#44AA99", "#882255", "#999933", "#CC6677"
SPARE = (GREEN, PURPLE, SKY, TEAL, WINE, OLIVE, ROSE)
"""Of systems without colours of their own. Four are from Paul Tol's muted scheme ("Colour
Schemes", SRON/EPS/TN/09-002, 2021); orange, blue and vermillion mean S-Attn and D-Attn."""
SYMBOLS = {"eager": "square", "sdpa": "circle", "flash": "diamond", "flex": "triangle-up"}
SPARE_SYMBOLS = (
    "circle",
    "diamond",
    "triangle-up",
    "square",
    "pentagon",
    "star",
    "hexagram",
    "triangle-left",
    "triangle-right",
    "bowtie",
)

DASHES = {
    "measured": ("solid", "longdash", "longdashdot"),
    "predicted": ("dash", "dot", "dashdot"),
}
"""Strokes by source, one for each device of it."""

FAILURES = {
    "oom": ("x", "out of memory"),
    "killed": ("triangle-down", "killed"),
    "timeout": ("hourglass", "timed out"),
    "error": ("star-diamond", "error"),
}
"""Status to symbol and words."""


LEGIBLE = 4.5
"""Contrast of words and their ground, of WCAG 2.2's criterion 1.4.3."""


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours ``#rrggbb`` as WCAG 2.2 defines it, from 1 to 21."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _mixed(color: str, other: str, share: float) -> str:
    """``color`` with that share of the other one."""
    pairs = [(int(color[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


@dataclass(frozen=True)
class Theme:
    """The neutral colours of one background."""

    name: str
    ink: str
    muted: str
    grid: str
    paper: str
    lift: float
    """How far colours move towards white, so that the dark ones stand out from a dark ground."""

    def shown(self, color: str) -> str:
        """``#rrggbb`` as it is drawn on this ground."""
        parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        return "#" + "".join(f"{round(p + (255 - p) * self.lift):02x}" for p in parts)

    def words(self, color: str) -> str:
        """``#rrggbb`` as small words have it: as near to it as is legible on this ground."""
        shades = (_mixed(color, self.ink, step / 10) for step in range(10))
        return next((each for each in shades if contrast(each, self.paper) >= LEGIBLE), self.ink)


LIGHT = Theme("light", "#1b1f24", "#5b6570", "#e3e6ea", "#ffffff", 0.0)
DARK = Theme("dark", "#eef1f4", "#a6b0ba", "#333a42", "#191919", 0.2)
THEMES = {theme.name: theme for theme in (LIGHT, DARK)}


@dataclass(frozen=True)
class Look:
    """The colour and the symbol of one series."""

    color: str
    symbol: str


def looks(series: Iterable[tuple[str, str, str]]) -> dict[str, Look]:
    """The look of each (label, attention, kernel), no two alike while there are looks left.

    It depends on the whole list, so pass all series of the store, not those on screen: a colour
    must not change its meaning when another series is hidden.
    """
    by_label: dict[str, Look] = {}
    own: dict[str, str] = {}
    for label, attention, kernel in sorted(set(series), key=_rank):
        color = PREFERRED.get((attention, kernel == "eager"))
        symbol = SYMBOLS.get(kernel, "circle")
        used = set(by_label.values())
        if color is None:
            # A system without colours of its own keeps one for all its kernels, the rarest.
            colors = [look.color for look in used]
            color = own.setdefault(attention, min(SPARE, key=colors.count))
        choices = [Look(color, s) for s in (symbol, *SPARE_SYMBOLS)]
        choices += [Look(c, s) for c, s in product(SPARE, SPARE_SYMBOLS)]
        by_label[label] = next((look for look in choices if look not in used), choices[0])
    return by_label


def _rank(entry: tuple[str, str, str]) -> tuple[bool, bool, tuple[str, str, str]]:
    # Systems with a colour of their own choose first; the longest label is the most special.
    label, attention, kernel = entry
    return ((attention, kernel == "eager") not in PREFERRED, len(label) > 24, entry)


def in_order(frame: pd.DataFrame) -> list[str]:
    """The series of the frame, the S-Attn baselines first."""
    rows = sorted(systems_of(frame), key=lambda row: (row[1] != "s_attn", row[0]))
    return [series for series, *_ in rows]


def place_names(frame: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Each (source, device) to its name: the device, and the conditions that are its own."""
    distinct = kinds(frame, ("source", "device", *CONDITIONS)).distinct
    conditions = [name for name in CONDITIONS if distinct[name].nunique(dropna=False) > 1]
    names = {}
    for (source, device), rows in distinct.groupby(["source", "device"]):
        words = [str(device)]
        for name in conditions:
            values = rows[name].unique()
            if len(values) == 1 and not pd.isna(values[0]):
                words.append(condition_words(name, values[0]))
        names[str(source), str(device)] = ", ".join(words)
    return names


def tint(color: str, alpha: float) -> str:
    """``#rrggbb`` as a CSS colour of that opacity."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def plain(text: object) -> str:
    """A name from a store, made safe where plotly would read it as markup."""
    return escape(str(text), quote=False)


def figure(data: Sequence[dict[str, Any]], layout: dict[str, Any]) -> go.Figure:
    """A figure of plain traces, unchecked: plotly would take longer for that than for all else.

    The tests have it check every kind of figure.
    """
    return go.Figure({"data": list(data), "layout": layout}, _validate=False)


LEGEND_WIDTH, LEGEND_ROW = 800, 31
"""Pixels that a legend has at least on a wide page, and that a row of it takes."""
ENTRY_MARK, ENTRY_LETTER = 60, 6.8
"""Pixels of an entry's mark with the gap behind it, and of a letter at the mean."""


def legend_height(names: Iterable[str], width: float = LEGEND_WIDTH) -> int:
    """Pixels of the rows below the first in which entries of these names stand."""
    rows, used = 0, 0.0
    for name in names:
        wide = ENTRY_MARK + ENTRY_LETTER * len(name)
        if used and used + wide > width:
            rows, used = rows + 1, 0.0
        used += wide
    return rows * LEGEND_ROW


def layout(theme: Theme, **more: Any) -> dict[str, Any]:
    """The layout that all figures share, on a transparent ground."""
    return {
        "font": {
            "family": '"Source Sans", "Helvetica Neue", Arial, sans-serif',
            "size": 14,
            "color": theme.ink,
        },
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 64, "r": 16, "t": 48, "b": 56},
        "hoverlabel": {
            "align": "left",
            "bgcolor": theme.paper,
            "bordercolor": theme.muted,
            "font": {"color": theme.ink, "size": 13},
        },
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": -0.2,
            "yanchor": "top",
            "font": {"size": 14},
            "itemsizing": "trace",
            "itemwidth": 44,
        },
        "hovermode": "closest",
        "dragmode": "zoom",
        "uirevision": "keep",
        # Its own ground is a half-transparent one of the paper, which is black on a clear one.
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": theme.muted, "activecolor": theme.ink},
        **more,
    }


def axis(theme: Theme, title: str, **more: Any) -> dict[str, Any]:
    """The axis that all figures share."""
    return {
        "title": {"text": title, "font": {"size": 14}, "standoff": 8},
        "gridcolor": theme.grid,
        "linecolor": theme.muted,
        "zeroline": False,
        "showline": True,
        "ticks": "outside",
        "tickcolor": theme.muted,
        "ticklen": 4,
        "tickfont": {"size": 13, "color": theme.ink},
        **more,
    }
