"""One metric over |V|: its axes, and what is drawn between them.

Everything is built as plain dictionaries: plotly checks a figure once, at the end, which is ten
times faster than adding trace after trace.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench.figures.axes import TOKENS, Axes, Reading, close_together, ticks, visual_axis
from workbench.figures.hover import hover
from workbench.figures.line_ends import Point, Stroke
from workbench.figures.lines import Crossing, Curve, Line, Row, known
from workbench.figures.style import FAILURES, Theme, axis, plain, tint
from workbench.vocabulary.metrics import METRICS
from workbench.vocabulary.units import AXIS_UNITS

CROSSING = "curves cross"
WORDS_HIGH = 0.1
"""Of a panel's height, what words beside a line take."""
FAR_LOG, FAR_LINEAR = 40.0, 2.0
"""A capacity beyond so many times the largest value would squeeze the points into a line."""

Trace = dict[str, Any]


class Panel:
    """One metric's part of a figure: ``traces``, two axes, ``annotations`` and ``shapes``."""

    def __init__(
        self,
        column: int,
        metric: str,
        theme: Theme,
        axes: Axes,
        domain: tuple[float, float],
        labels: int,
        reading: Reading = TOKENS,
        title: str = "",
        rows: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.reading, self.title, self.rows = reading, title, rows
        self.metric, self.theme, self.axes, self.domain = metric, theme, axes, domain
        self.suffix, self.labels = ("" if column == 1 else str(column)), labels
        self.unit, self.base = AXIS_UNITS.get(METRICS[metric].unit, (METRICS[metric].unit, 1.0))
        self.traces: list[Trace] = []
        self.annotations: list[dict[str, Any]] = []
        self.shapes: list[dict[str, Any]] = []
        self.x_axis: dict[str, Any] = {}
        self.y_axis: dict[str, Any] = {}
        self._slots: dict[str, float] = {}
        self._strip, self._inner = "", 0.0

    def _add(self, **trace: Any) -> None:
        place = {"xaxis": f"x{self.suffix}", "yaxis": f"y{self.suffix}"}
        self.traces.append({"type": "scatter", "showlegend": False, **place, **trace})

    def _values(self, rows: Sequence[Row]) -> list[float]:
        return [row[self.metric] / self.base for row in rows]

    def frame_axes(self, lines: Sequence[Line], capacities: Mapping[str, int]) -> None:
        """Fix the ranges, so that the strip of failures is above everything else."""
        rows = [row for line in lines for row in line.rows]
        values = [v for v in self._values([r for r in rows if known(r[self.metric])]) if v > 0]
        far = max(values, default=0.0) * (FAR_LOG if self.axes.log_y else FAR_LINEAR)
        marked = {name: size / self.base for name, size in capacities.items()}
        marked = {name: size for name, size in marked.items() if size <= far}
        statuses = {row["status"] for row in rows if self._has_failed(row)}
        self._strip = " or ".join(
            words for name, (_, words) in FAILURES.items() if name in statuses
        )
        names = [line.series for line in lines if any(map(self._has_failed, line.rows))]
        names = list(dict.fromkeys(names))
        top = max([*values, *marked.values()], default=1.0)
        inner, limits = self._limits(values, top, names)
        self._inner = inner
        for place, name in enumerate(names, start=1):
            at = inner + (limits[1] - inner) * place / (len(names) + 0.6)
            self._slots[name] = 10**at if self.axes.log_y else at
        visual = [row["num_visual"] for row in rows if row["num_visual"] > 0] or [1]
        self.x_axis = axis(
            self.theme,
            self.reading.title,
            domain=[*self.domain],
            anchor=f"y{self.suffix}",
            **visual_axis(visual, self.axes.log_x, self.labels, self.reading),
        )
        self.y_axis = axis(
            self.theme,
            "",
            anchor=f"x{self.suffix}",
            range=limits,
            domain=[*self.rows],
            type="log" if self.axes.log_y else "linear",
            **ticks(limits[0], limits[1], self.axes.log_y),
        )
        self._title()
        if names:
            upper = [row for line in lines if line.series == names[-1] for row in line.rows]
            failed = [row["num_visual"] for row in upper if self._has_failed(row)]
            self._shade(inner, limits[1], failed)
        levels = {n: math.log10(size) if self.axes.log_y else size for n, size in marked.items()}
        for devices in close_together(levels, WORDS_HIGH * (limits[1] - limits[0])):
            sizes = [marked[device] for device in devices]
            # Above the highest line the strip has words of its own.
            at_strip = bool(names) and sizes[-1] >= top
            alone = len(devices) == 1 < len(marked)
            words = f"{plain(devices[0])} has" if alone else "capacity"
            end = self._empty_end(rows, sizes[-1], limits)
            self._capacity(words, sizes, "top" if at_strip else "bottom", end)

    def end_of(self, row: Row) -> Point:
        """Where a cell with a value stands, as an annotation has it."""
        x, y = float(row["num_visual"]), row[self.metric] / self.base
        return math.log10(x) if self.axes.log_x else x, math.log10(y) if self.axes.log_y else y

    def strokes(self, lines: Sequence[Line], names: Mapping[str, str]) -> list[Stroke]:
        """The lines and their names, each name once, where its line goes furthest; capacities."""
        last: dict[str, tuple[Line, Row]] = {}
        strokes = []
        for line in lines:
            rows = [row for row in line.rows if self._has_place(row)]
            strokes.append(Stroke([self._share(*self.end_of(row)) for row in rows]))
            if rows:
                further = last.get(line.series, (line, rows[0]))[1]["num_visual"]
                if rows[-1]["num_visual"] >= further:
                    last[line.series] = line, rows[-1]
        for series, (line, row) in last.items():
            end = self.end_of(row)
            strokes.append(Stroke([self._share(*end)], plain(names[series]), line.look.color, end))
        for shape in self.shapes:
            if shape["type"] == "line":
                level = math.log10(shape["y0"]) if self.axes.log_y else shape["y0"]
                (_, y) = self._share(0.0, level)
                words = WORDS_HIGH / 2  # They stand above the line or below it.
                heights = (y - words, y, y + words)
                strokes += [Stroke([(0.0, height), (1.0, height)]) for height in heights]
        return strokes

    @property
    def top(self) -> float:
        """The share of the panel's height that is below its strip of failures."""
        return self._share(0.0, self._inner)[1] if self._slots else 1.0

    def _share(self, x: float, y: float) -> Point:
        """An annotation's place as shares of the panel's width and height."""
        (left, right), (low, high) = self.x_axis["range"], self.y_axis["range"]
        return (x - left) / (right - left), (y - low) / (high - low)

    def _has_place(self, row: Row) -> bool:
        return known(row[self.metric]) and row[self.metric] > 0 and row["num_visual"] > 0

    def _has_failed(self, row: Row) -> bool:
        return row["status"] in FAILURES and not known(row[self.metric])

    def _limits(
        self, values: Sequence[float], top: float, names: Sequence[str]
    ) -> tuple[float, list[float]]:
        """Where the strip begins, and the whole range; exponents on a logarithmic axis."""
        strip = 0.06 + 0.045 * len(names) if names else 0.05
        if not self.axes.log_y:
            inner = top * 1.03
            return inner, [0.0, inner / (1 - strip)]
        low = min(values, default=top / 10)
        span = max(math.log10(top / low), 0.5)
        bottom, inner = math.log10(low) - 0.06 * span, math.log10(top) + 0.03 * span
        return inner, [bottom, inner + (inner - bottom) / (1 - strip) * strip]

    def _write(self, text: str, y: float, **more: Any) -> None:
        """Words at the left edge of the panel, at ``y`` in the axis' own terms."""
        self.annotations.append(
            {
                "text": text,
                "xref": f"x{self.suffix} domain",
                "yref": f"y{self.suffix}",
                "x": 0.012,
                "y": y,
                "xanchor": "left",
                "showarrow": False,
                "font": {"size": 12, "color": self.theme.muted},
                **more,
            }
        )

    def _title(self) -> None:
        text = METRICS[self.metric].label + (f" ({self.unit})" if self.unit else "")
        text = self.title or text
        self.annotations.append(
            {
                "text": f"<b>{plain(text)}</b>",
                "xref": f"x{self.suffix} domain",
                "yref": "paper",
                "x": 0,
                "y": self.rows[1],
                "xanchor": "left",
                "yanchor": "bottom",
                "yshift": 8,
                "showarrow": False,
                "font": {"size": 15},
            }
        )

    def _shape(self, low: float, high: float, **more: Any) -> None:
        self.shapes.append(
            {
                "xref": f"x{self.suffix} domain",
                "x0": 0,
                "x1": 1,
                "yref": f"y{self.suffix}",
                "y0": low,
                "y1": high,
                **more,
            }
        )

    def _shade(self, low: float, high: float, failed: Sequence[float]) -> None:
        """The strip, and its words at the end that the upper cells, which failed, leave free."""
        ends = [10**low, 10**high] if self.axes.log_y else [low, high]
        self._shape(
            *ends,
            type="rect",
            layer="below",
            line={"width": 0},
            fillcolor=tint(self.theme.muted, 0.12),
        )
        places = [math.log10(at) if self.axes.log_x else at for at in failed if at]
        along = [self._share(at, low)[0] for at in places]
        at_right = sum(at > 0.6 for at in along) < sum(at < 0.4 for at in along)
        end = {"x": 0.988, "xanchor": "right"} if at_right else {}
        self._write(self._strip, high, yanchor="top", **end)

    def _empty_end(self, rows: Sequence[Row], capacity: float, limits: Sequence[float]) -> float:
        """Where along a capacity's line its words meet the fewest points: 0, a half or 1."""
        counts = dict.fromkeys((0.0, 0.5, 1.0), 0)
        level = math.log10(capacity) if self.axes.log_y else capacity
        for row in filter(self._has_place, rows):
            x, y = self.end_of(row)
            if abs(y - level) < WORDS_HIGH * (limits[1] - limits[0]):
                along, _ = self._share(x, y)
                counts[min(counts, key=lambda end: abs(end - along))] += 1
        return min(counts, key=lambda end: counts[end])

    def _capacity(self, words: str, sizes: Sequence[float], anchor: str, end: float) -> None:
        """A line for each size, and words at the highest of them."""
        line = {"color": self.theme.muted, "width": 1.5, "dash": "dot"}
        for size in sizes:
            self._shape(size, size, type="line", line=line)
        # An annotation on a logarithmic axis is placed by the exponent, a shape by the value.
        y = math.log10(sizes[-1]) if self.axes.log_y else sizes[-1]
        at = {0.0: "left", 0.5: "center", 1.0: "right"}[end]
        ends = dict.fromkeys(f"{size:.1f}" for size in (sizes[0], sizes[-1]))
        words = f"{words} {' to '.join(ends)} GiB"
        ground = tint(self.theme.paper, 0.75)
        self._write(words, y, yanchor=anchor, x=0.012 + 0.976 * end, xanchor=at, bgcolor=ground)

    def draw(self, line: Line, curve: Curve | None) -> None:
        """The line's curve with its band, its points, and its failures.

        A curve without a band goes through every point by force: it says nothing, and the points
        are joined instead.
        """
        if curve is not None and not known(curve.low[0]):
            curve = None
        if curve is not None:
            self._curve(line, curve)
        valued = [row for row in line.rows if known(row[self.metric])]
        if valued:
            self._points(line, valued, joined=curve is None)
        beyond = [row for row in valued if row["status"] == "oom"]
        if beyond:
            look = {
                "symbol": "x-thin",
                "size": 12,
                "line": {"width": 1.8, "color": self.theme.ink},
            }
            self._marks(line, beyond, self._values(beyond), look)
        for status, (symbol, _) in FAILURES.items():
            failed = [r for r in line.rows if r["status"] == status and self._has_failed(r)]
            if failed:
                look = {
                    "symbol": symbol,
                    "size": 10,
                    "color": line.look.color,
                    "line": {"width": 0.8, "color": self.theme.paper},
                }
                self._marks(line, failed, [self._slots[line.series]] * len(failed), look)

    def cross(self, line: Line, curve: Curve, crossing: Crossing) -> None:
        """A ring where the line's curve becomes the lower one."""
        at = crossing.num_visual
        y = float(np.interp(at, curve.num_visual, curve.value)) / self.base
        words = (
            f"<b>crossing</b><br>{plain(line.series)} is below {plain(crossing.baseline)}<br>"
            f"from |V| = {at:,.0f} on, by the fitted curves"
        )
        self._add(
            x=[at],
            y=[y],
            mode="markers",
            customdata=[words],
            name=CROSSING,
            hovertemplate="%{customdata}<extra></extra>",
            legendgroup=plain(line.series),
            marker={
                "symbol": "circle-open",
                "size": 18,
                "color": self.theme.ink,
                "line": {"width": 2},
            },
        )

    def _curve(self, line: Line, curve: Curve) -> None:
        x, value = curve.num_visual, curve.value / self.base
        # A band that dips below zero would vanish from a logarithmic axis with its line.
        floor = min(value[value > 0], default=1.0) * 1e-3
        low, high = (np.maximum(side / self.base, floor) for side in (curve.low, curve.high))
        group = {"legendgroup": plain(line.series), "hoverinfo": "skip", "mode": "lines"}
        self._add(
            x=_short([*x, *x[::-1]]),
            y=_short([*high, *low[::-1]]),
            fill="toself",
            line={"width": 0},
            fillcolor=tint(line.look.color, 0.18),
            **group,
        )
        self._add(
            x=_short(x),
            y=_short(value),
            **group,
            line={"color": line.look.color, "width": 2.2, "dash": line.dash},
        )

    def _points(self, line: Line, rows: Sequence[Row], joined: bool) -> None:
        values = self._values(rows)
        more: dict[str, Any] = {}
        if self.metric == "time_s" and any(known(row["time_q1_s"]) for row in rows):
            ends = [(row["time_q1_s"], row["time_q3_s"]) for row in rows]
            more["error_y"] = {
                "type": "data",
                "symmetric": False,
                "thickness": 1.4,
                "width": 4,
                "array": [
                    hi - v if known(hi) else 0.0 for v, (_, hi) in zip(values, ends, strict=True)
                ],
                "arrayminus": [
                    v - lo if known(lo) else 0.0 for v, (lo, _) in zip(values, ends, strict=True)
                ],
            }
        measured = line.source == "measured"
        edge = {"width": 1.6, "color": line.look.color}
        if measured:
            edge = {"width": 0.8, "color": self.theme.paper}
        symbols = line.symbols(rows, self.metric)
        if isinstance(symbols, list):
            hollow = [symbol.endswith("-open") for symbol in symbols]
            edge = {
                "width": [1.6 if h else 0.8 for h in hollow],
                "color": [line.look.color if h else self.theme.paper for h in hollow],
            }
        marker = {"color": line.look.color, "symbol": symbols, "size": 9, "line": edge}
        stroke = {"color": line.look.color, "width": 1, "dash": line.dash}
        self._add(
            x=[row["num_visual"] for row in rows],
            y=values,
            marker=marker,
            line=stroke,
            **more,
            mode="lines+markers" if joined else "markers",
            **self._hover(line, rows),
        )

    def _marks(
        self, line: Line, rows: Sequence[Row], y: Sequence[float], marker: dict[str, Any]
    ) -> None:
        self._add(
            x=[row["num_visual"] for row in rows],
            y=list(y),
            mode="markers",
            cliponaxis=False,
            marker=marker,
            **self._hover(line, rows),
        )

    def _hover(self, line: Line, rows: Sequence[Row]) -> dict[str, Any]:
        return {
            "customdata": [hover(row, self.metric) for row in rows],
            "hovertemplate": "%{customdata}<extra></extra>",
            "name": plain(line.series),
            "legendgroup": plain(line.series),
        }


def _short(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """To seven digits: a curve has hundreds of numbers, and no screen shows more of one."""
    return np.asarray(values, dtype=np.float32)
