"""One metric's axes, and what is drawn between them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from workbench.figures.hover import hover
from workbench.figures.style import FAILURES, Look, Theme, axis, plain, tint
from workbench.figures.units import AXIS_UNITS
from workbench.record import METRICS

FAR_LOG, FAR_LINEAR = 40.0, 2.0
VISUAL_TITLE = "visual tokens |V|"


@dataclass(frozen=True)
class Axes:
    """Which axes are logarithmic."""

    log_x: bool = True
    log_y: bool = True


@dataclass(frozen=True)
class Line:
    series: str
    look: Look
    source: str
    dash: str

    @property
    def symbol(self) -> str:
        return self.look.symbol + ("" if self.source == "measured" else "-open")


class Panel:
    """One metric's axes, and what is drawn between them."""

    def __init__(
        self, figure: go.Figure, column: int, metric: str, theme: Theme, axes: Axes, labels: int
    ) -> None:
        self.figure, self.column, self.metric = figure, column, metric
        self.theme, self.axes, self.labels = theme, axes, labels
        self.unit, self.base = AXIS_UNITS.get(METRICS[metric].unit, (METRICS[metric].unit, 1.0))
        self.slots: dict[str, float] = {}

    def add(self, trace: go.Scatter) -> None:
        self.figure.add_trace(trace, row=1, col=self.column)

    def frame_axes(self, frame: pd.DataFrame, capacities: Mapping[str, int]) -> None:
        """Fix the ranges, so that the strip of failures is above everything else."""
        values = [v for v in frame[self.metric].dropna() / self.base if v > 0]
        visual = [v for v in frame["num_visual"] if v > 0] or [1]
        # A capacity far above every point would squeeze them into a line.
        far = max(values, default=0.0) * (FAR_LOG if self.axes.log_y else FAR_LINEAR)
        known = {name: bytes_ / self.base for name, bytes_ in capacities.items()}
        shown = {name: value for name, value in known.items() if value <= far}
        failed = frame[frame["status"].isin(list(FAILURES)) & frame[self.metric].isna()]
        names = sorted(failed["series"].unique())
        top = max([*values, *shown.values()], default=1.0)
        low = min(values, default=top / 10)
        strip = 0.06 + 0.045 * len(names) if names else 0.05
        if self.axes.log_y:
            span = max(math.log10(top / low), 0.5)
            bottom, inner = math.log10(low) - 0.06 * span, math.log10(top) + 0.03 * span
            height = (inner - bottom) / (1 - strip) * strip
            limits = [bottom, inner + height]
        else:
            inner = top * 1.03
            height = inner / (1 - strip) * strip
            limits = [0.0, inner + height]
        for place, name in enumerate(names, start=1):
            at = inner + height * place / (len(names) + 0.6)
            self.slots[name] = 10**at if self.axes.log_y else at
        x_axis = _visual_axis(visual, self.axes.log_x, self.labels)
        kind = "log" if self.axes.log_y else "linear"
        title = METRICS[self.metric].label + (f" ({self.unit})" if self.unit else "")
        ticks = {"dtick": 1} if self.axes.log_y and limits[1] - limits[0] > 2 else {"nticks": 7}
        self.figure.update_xaxes(**axis(self.theme), **x_axis, row=1, col=self.column)
        self.figure.update_xaxes(title_text=VISUAL_TITLE, row=1, col=self.column)
        self.figure.update_yaxes(
            **axis(self.theme, type=kind, range=limits, tickformat=",.6~g", **ticks),
            row=1, col=self.column,
        )  # fmt: skip
        self._title(title)
        if names:
            self._shade(inner, limits[1])
        for device, capacity in sorted(shown.items()):
            self._capacity(device, capacity)

    def _write(self, text: str, y: float, **more: object) -> None:
        """Words at the left edge of the panel, at ``y`` in the axis' own terms."""
        suffix = "" if self.column == 1 else str(self.column)
        self.figure.add_annotation(
            text=text, xref=f"x{suffix} domain", yref=f"y{suffix}", x=0.012, y=y,
            xanchor="left", showarrow=False,
            font={"size": 12, "color": self.theme.muted}, **more,
        )  # fmt: skip

    def _title(self, text: str) -> None:
        suffix = "" if self.column == 1 else str(self.column)
        self.figure.add_annotation(
            text=f"<b>{plain(text)}</b>", xref=f"x{suffix} domain", yref="paper", x=0, y=1,
            xanchor="left", yanchor="bottom", yshift=8, showarrow=False, font={"size": 15},
        )  # fmt: skip

    def _shade(self, low: float, high: float) -> None:
        ends = [10**low, 10**high] if self.axes.log_y else [low, high]
        self.figure.add_hrect(
            y0=ends[0], y1=ends[1], fillcolor=tint(self.theme.muted, 0.12), line_width=0,
            layer="below", row=1, col=self.column, exclude_empty_subplots=False,
        )  # fmt: skip
        self._write("did not run", high, yanchor="top")

    def _capacity(self, device: str, capacity: float) -> None:
        self.figure.add_hline(
            y=capacity, line={"color": self.theme.muted, "width": 1.5, "dash": "dot"},
            row=1, col=self.column, exclude_empty_subplots=False,
        )  # fmt: skip
        # An annotation on a logarithmic axis is placed by the exponent, a shape by the value.
        y = math.log10(capacity) if self.axes.log_y else capacity
        self._write(f"{plain(device)} has {capacity:.1f} GiB", y, yanchor="bottom")

    def draw_curve(self, line: Line, fitted: pd.DataFrame) -> None:
        if fitted.empty:
            return
        rows = fitted.sort_values("num_visual")
        x = rows["num_visual"].tolist()
        # A band that dips below zero would vanish from a logarithmic axis with its line.
        floor = rows["value"].min() / self.base * 1e-3
        low = (rows["low"] / self.base).clip(lower=floor).tolist()
        high = (rows["high"] / self.base).clip(lower=floor).tolist()
        self.add(go.Scatter(
            x=x + x[::-1], y=high + low[::-1], fill="toself",
            fillcolor=tint(line.look.color, 0.18),
            line={"width": 0}, mode="lines", hoverinfo="skip", showlegend=False,
            legendgroup=plain(line.series),
        ))  # fmt: skip
        self.add(go.Scatter(
            x=x, y=(rows["value"] / self.base).tolist(), mode="lines", hoverinfo="skip",
            line={"color": line.look.color, "width": 2.2, "dash": line.dash}, showlegend=False,
            legendgroup=plain(line.series),
        ))  # fmt: skip

    def draw_points(self, line: Line, rows: pd.DataFrame, joined: bool) -> None:
        rows = rows[rows[self.metric].notna()].sort_values("num_visual")
        if rows.empty:
            return
        values = (rows[self.metric] / self.base).astype(float)
        bars = None
        if self.metric == "time_s" and rows["time_q1_s"].notna().any():
            bars = {
                "type": "data", "symmetric": False, "thickness": 1.4, "width": 4,
                "array": (rows["time_q3_s"].fillna(rows["time_s"]) - rows["time_s"]).tolist(),
                "arrayminus": (rows["time_s"] - rows["time_q1_s"].fillna(rows["time_s"])).tolist(),
            }  # fmt: skip
        self.add(go.Scatter(
            x=rows["num_visual"].tolist(), y=values.tolist(), error_y=bars,
            mode="lines+markers" if joined else "markers",
            line={"color": line.look.color, "width": 1, "dash": line.dash},
            marker={"color": line.look.color, "symbol": line.symbol, "size": 9,
                    "line": {"width": 1.6 if line.source == "predicted" else 0.8,
                             "color": line.look.color if line.source == "predicted"
                             else self.theme.paper}},
            customdata=[hover(row, self.metric) for row in rows.to_dict("records")],
            hovertemplate="%{customdata}<extra></extra>",
            name=plain(line.series), legendgroup=plain(line.series), showlegend=False,
        ))  # fmt: skip
        beyond = rows[rows["status"] == "oom"]
        if len(beyond):
            self._marks(line, beyond, (beyond[self.metric] / self.base).tolist(), "oom")

    def draw_failures(self, line: Line, rows: pd.DataFrame) -> None:
        for status in FAILURES:
            failed = rows[(rows["status"] == status) & rows[self.metric].isna()]
            if len(failed):
                self._marks(line, failed, [self.slots[line.series]] * len(failed), status)

    def _marks(self, line: Line, rows: pd.DataFrame, y: list[float], status: str) -> None:
        symbol = FAILURES[status][0]
        valued = rows[self.metric].notna().any()
        self.add(go.Scatter(
            x=rows["num_visual"].tolist(), y=y, mode="markers", cliponaxis=False,
            marker={"symbol": "x-thin" if valued else symbol, "size": 12 if valued else 10,
                    "color": line.look.color,
                    "line": {"width": 1.8 if valued else 0.8,
                             "color": self.theme.ink if valued else self.theme.paper}},
            customdata=[hover(row, self.metric) for row in rows.to_dict("records")],
            hovertemplate="%{customdata}<extra></extra>",
            legendgroup=plain(line.series), showlegend=False,
        ))  # fmt: skip


def _visual_axis(visual: Sequence[float], log: bool, labels: int) -> dict[str, object]:
    low, high = min(visual), max(visual)
    if not log:
        return {"type": "linear", "range": [0, high * 1.04], "tickformat": "~s", "nticks": 6}
    span = max(math.log10(high / low), 0.3)
    first, last = math.floor(math.log2(low)), math.ceil(math.log2(high))
    # Sweeps double |V|, so powers of two are where the points are.
    step = max(1, math.ceil((last - first) / labels))
    at = [2**power for power in range(first, last + 1, step)]
    return {
        "type": "log", "tickvals": at, "ticktext": [f"{v:,}" for v in at],
        "range": [math.log10(low) - 0.05 * span, math.log10(high) + 0.05 * span],
    }  # fmt: skip
