"""Every line of a store over |V|: its points, its fitted curve, where it stops."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from workbench.analysis.fits import Fit, fit_curve
from workbench.analysis.series import LINE, kinds, with_series
from workbench.record import Status

CURVE_POINTS = 96
MIN_CURVE = 3
"""Different |V| that a curve needs to be drawn."""

_CURVE = [*LINE, "metric", "num_visual", "value", "low", "high"]
_FITS = [*LINE, "metric", "num_points", "a", "a_low", "a_high", "b", "b_low", "b_high", "c",
         "c_low", "c_high", "scatter", "shape", "note"]  # fmt: skip


class Scaling(NamedTuple):
    """One metric over |V|."""

    points: pd.DataFrame
    """The columns of LINE, then num_visual, value, status, num_samples, key, run."""
    fits: pd.DataFrame
    """One row a line: a, b, c with their 95 % intervals, scatter, shape, note."""
    curves: pd.DataFrame
    """The fitted curves and their 95 % bands at many |V|, within the range of the points."""


def scaling(frame: pd.DataFrame, metric: str) -> Scaling:
    """The lines of ``metric`` in a store's frame, one for each subject, condition, system, source
    and device. Predicted cells beyond the device's memory keep their values and are points too.
    """
    rows = with_series(frame)
    points = _valued(rows, metric).rename(columns={metric: "value"})
    columns = [*LINE, "num_visual", "value", "status", "key", "run"]
    counts = [] if metric == "num_samples" else ["num_samples"]
    fits, curves = fit(rows, [metric])
    return Scaling(points[columns + counts].reset_index(drop=True), fits, curves)


def fit(frame: pd.DataFrame, metrics: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The fits of every line and metric, and the curves to draw them by; see ``Scaling``."""
    # Narrow: to take a wide table apart line by line costs as much as all of the fits.
    rows = with_series(frame)[[*LINE, "num_visual", "status", *metrics]]
    fits: list[dict[str, Any]] = []
    curved: list[dict[str, Any]] = []
    curves: list[np.ndarray] = []
    every = lines(rows)
    for metric in metrics:
        for line, group in every:
            own = _valued(group, metric)
            if own.empty:
                continue
            found = fit_curve(own["num_visual"].to_numpy(), own[metric].to_numpy())
            facts = {**line, "metric": metric}
            fits.append({**facts, **_described(found)})
            if own["num_visual"].nunique() >= MIN_CURVE:
                curved.append(facts)
                curves.append(_curve(found, own["num_visual"]))
    return pd.DataFrame(fits, columns=_FITS), _joined(curved, curves)


def _joined(facts: Sequence[dict[str, Any]], curves: Sequence[np.ndarray]) -> pd.DataFrame:
    """All curves in one table: a table for each would take longer than all of the fits."""
    if not curves:
        return pd.DataFrame(columns=_CURVE)
    own = np.repeat(np.arange(len(curves)), [len(curve) for curve in curves])
    table = pd.DataFrame(facts).take(own).reset_index(drop=True)
    numbers = pd.DataFrame(np.concatenate(curves), columns=_CURVE[-4:])
    return table.join(numbers)[_CURVE]


def lines(frame: pd.DataFrame) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """The frame's lines: what is equal along each, and its rows by growing |V|."""
    # What they have in common at once: taken one by one it costs as much as all of the fits.
    codes, distinct, _ = kinds(frame, LINE)
    facts = distinct.to_dict("records")
    order = frame["num_visual"].argsort(kind="stable")
    groups = frame.iloc[order].groupby(codes[order])
    return [
        ({str(name): value for name, value in line.items()}, group)
        for line, (_, group) in zip(facts, groups, strict=True)
    ]


def _valued(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    ended = rows["status"].isin([Status.OK.value, Status.OOM.value])
    return rows[ended & rows[metric].notna()]


def _described(found: Fit) -> dict[str, Any]:
    facts: dict[str, Any] = {"num_points": found.num_points}
    for name, term, interval in zip("abc", found.terms, found.intervals, strict=True):
        low, high = interval or (None, None)
        facts |= {name: term, f"{name}_low": low, f"{name}_high": high}
    return {**facts, "scatter": found.scatter, "shape": found.shape, "note": found.note}


def _curve(found: Fit, num_visual: pd.Series) -> np.ndarray:
    """(points, 4): |V|, the curve, its band from below and above."""
    low, high = float(num_visual.min()), float(num_visual.max())
    # Even on a logarithmic axis, where sweeps are drawn; a point at 0 has no place on it.
    at = np.geomspace(low or min(1.0, high), high, CURVE_POINTS)
    at = np.unique(np.concatenate([[low], at]))
    below, above = found.band(at)
    return np.column_stack([at, found.values(at), below, above])


def oom_points(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells that ran out of memory, or were predicted to, with the frame's columns."""
    rows = with_series(frame)
    found = rows[rows["status"] == Status.OOM.value]
    return found.sort_values([*LINE[-5:], "num_visual"], kind="stable").reset_index(drop=True)


def limits(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a line: the largest |V| that ran (``max_visual``), the smallest beyond it that ran
    out of memory (``fails_at``), both nullable integers, and ``num_cells``.
    """
    narrow = with_series(frame)[[*LINE, "num_visual", "status"]].reset_index(drop=True)
    codes, distinct, counts = kinds(narrow, LINE)
    at = narrow["num_visual"].astype("float64")
    largest = at.where(narrow["status"] == Status.OK.value).groupby(codes).max().to_numpy()
    # Nothing is at most a |V| that is not there.
    beyond = (narrow["status"] == Status.OOM.value) & ~(at <= largest[codes])
    table = distinct.assign(
        max_visual=largest, fails_at=at.where(beyond).groupby(codes).min().to_numpy(),
        num_cells=counts,
    )  # fmt: skip
    return table.astype({"max_visual": "Int64", "fails_at": "Int64"})
