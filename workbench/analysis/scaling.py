"""Every line of a store over |V|: its points, its fitted curve, where it stops."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis.fits import Fit, fit_curve
from workbench.analysis.growth import growth
from workbench.analysis.host_bound import without_host_bound
from workbench.analysis.series import LINE, kinds, with_series
from workbench.vocabulary.record import Status

CURVE_POINTS = 96
MIN_CURVE = 3
"""Different |V| that a curve needs to be drawn."""

_CURVE = [*LINE, "metric", "num_visual", "value", "low", "high"]
_FITS = [
    *LINE,
    "metric",
    "num_points",
    "a",
    "a_low",
    "a_high",
    "b",
    "b_low",
    "b_high",
    "c",
    "c_low",
    "c_high",
    "scatter",
    "shape",
    "note",
    "growth",
    "grows_from",
    "grows_to",
    "host_bound",
]


def fit(frame: pd.DataFrame, metrics: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The fits of every line and metric, and the curves to draw them by.

    A line is one subject, set of conditions, system, source and device; predicted cells beyond the
    device's memory keep their values and are points too; seconds of cells that the host held up
    (flag ``host_bound``) are none: ``host_bound`` of a fit names their |V|. Fits: a, b, c with
    their 95 % intervals, scatter, shape, note; ``growth``, how many times as much four times the
    tokens take, between ``grows_from`` and ``grows_to``. Curves: with their 95 % bands, within the
    range of the points, of the lines whose shape the points tell.
    """
    # As arrays: to take a table apart line by line costs as much as all of the fits.
    whole = with_series(frame)
    rows = without_host_bound(whole, metrics)
    at, is_ok = rows["num_visual"].to_numpy(), _ended(rows).to_numpy()
    columns = {metric: rows[metric].to_numpy() for metric in metrics}
    held_up = {
        metric: pd.isna(values) & ~pd.isna(whole[metric].to_numpy())
        for metric, values in columns.items()
    }
    numbers = {metric: is_ok & ~pd.isna(values) for metric, values in columns.items()}
    every = _lines(rows)
    fits: list[dict[str, Any]] = []
    curved: list[dict[str, Any]] = []
    curves: list[np.ndarray] = []
    for metric in metrics:
        for line, places in every:
            own = places[numbers[metric][places]]
            if not len(own):
                continue
            curve = fit_curve(at[own], columns[metric][own])
            facts = {**line, "metric": metric}
            waited = at[places[is_ok[places] & held_up[metric][places]]]
            fits.append(
                {
                    **facts,
                    **_described(curve),
                    **_grown(at[own], columns[metric][own]),
                    "host_bound": tuple(waited.tolist()),
                }
            )
            if curve.shape is not None and len(np.unique(at[own])) >= MIN_CURVE:
                curved.append(facts)
                curves.append(_curve(curve, at[own]))
    return pd.DataFrame(fits, columns=_FITS), _joined(curved, curves)


def _joined(facts: Sequence[dict[str, Any]], curves: Sequence[np.ndarray]) -> pd.DataFrame:
    """All curves in one table: a table for each would take longer than all of the fits."""
    if not curves:
        return pd.DataFrame(columns=_CURVE)
    own = np.repeat(np.arange(len(curves)), [len(curve) for curve in curves])
    table = pd.DataFrame(facts).take(own).reset_index(drop=True)
    numbers = pd.DataFrame(np.concatenate(curves), columns=_CURVE[-4:])
    return table.join(numbers)[_CURVE]


def _lines(frame: pd.DataFrame) -> list[tuple[dict[str, Any], np.ndarray]]:
    """The frame's lines: what is equal along each, and the places of its rows by growing |V|."""
    codes, distinct, counts = kinds(frame, LINE)
    order = np.lexsort((frame["num_visual"].to_numpy(), codes))
    return [
        ({str(name): value for name, value in line.items()}, places)
        for line, places in zip(
            distinct.to_dict("records"), np.split(order, counts.cumsum())[:-1], strict=True
        )
    ]


def _ended(rows: pd.DataFrame) -> pd.Series:
    return rows["status"].isin([Status.OK.value, Status.OOM.value])


def _described(fit: Fit) -> dict[str, Any]:
    facts: dict[str, Any] = {"num_points": fit.num_points}
    for name, term, interval in zip("abc", fit.terms, fit.intervals, strict=True):
        low, high = interval or (None, None)
        facts |= {name: term, f"{name}_low": low, f"{name}_high": high}
    return {**facts, "scatter": fit.scatter, "shape": fit.shape, "note": fit.note}


def _grown(num_visual: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    step = growth(num_visual, values)
    if step is None:
        return {"growth": None, "grows_from": None, "grows_to": None}
    return {"growth": step.factor, "grows_from": step.low, "grows_to": step.high}


def _curve(fit: Fit, num_visual: np.ndarray) -> np.ndarray:
    """(points, 4): |V|, the curve, its band from below and above."""
    low, high = float(num_visual.min()), float(num_visual.max())
    # Even on a logarithmic axis, where sweeps are drawn; a point at 0 has no place on it.
    at = np.geomspace(low or min(1.0, high), high, CURVE_POINTS)
    at = np.unique(np.concatenate([[low], at]))
    below, above = fit.band(at)
    return np.column_stack([at, fit.values(at), below, above])


def limits(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a line: the largest |V| that ran (``max_visual``), the smallest beyond it that ran
    out of memory (``fails_at``), both nullable integers, and ``num_cells``.
    """
    rows = with_series(frame)
    codes, distinct, counts = kinds(rows, LINE)
    at, status = rows["num_visual"].to_numpy(), rows["status"].to_numpy()
    largest, smallest = np.full(len(distinct), -1), np.full(len(distinct), _NEVER)
    ran = status == Status.OK.value
    np.maximum.at(largest, codes[ran], at[ran])
    beyond = (status == Status.OOM.value) & (at > largest[codes])
    np.minimum.at(smallest, codes[beyond], at[beyond])
    return distinct.assign(
        max_visual=pd.arrays.IntegerArray(largest, largest < 0),
        fails_at=pd.arrays.IntegerArray(smallest, smallest == _NEVER),
        num_cells=counts,
    )


_NEVER = np.iinfo(np.int64).max
