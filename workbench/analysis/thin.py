"""Fewer points for a figure that would draw more than a screen can show or a browser can carry."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from tsdownsample import MinMaxLTTBDownsampler

from workbench.analysis.series import group_codes

MOST_POINTS = 1_200
"""Of a whole figure: with what each says under the pointer, about half a MB."""
LEAST = 12
"""Points that every line keeps, however many lines there are."""

LINES = ("model", "series", "source", "device", "status")


def thin(
    rows: pd.DataFrame,
    metrics: Sequence[str],
    panels: int = 1,
    most: int = MOST_POINTS,
    lines: Sequence[str] = LINES,
) -> pd.DataFrame:
    """The rows that show how ``metrics`` run over |V|: the ends and extremes of each line.

    A row is drawn once in each of ``panels``. Lines that are short enough stay whole; so does
    every kind of ending, each for itself. The rows stay in their order. ``most`` is about how many
    points the figure gets in all; ``lines`` are the columns that are equal along one of its lines.
    """
    if len(rows) * panels <= most:
        return rows
    codes = group_codes(rows, lines)
    each = max(most // ((codes.max() + 1) * panels * len(metrics)), LEAST)
    keep = np.zeros(len(rows), dtype=bool)
    for group in (np.flatnonzero(codes == code) for code in range(codes.max() + 1)):
        for metric in metrics:
            keep[_most_telling(rows, group, metric, each)] = True
    return rows[keep]


def _most_telling(rows: pd.DataFrame, group: np.ndarray, metric: str, count: int) -> np.ndarray:
    """Positions of ``count`` rows of a group, or all where it has no more."""
    at = rows["num_visual"].to_numpy()[group]
    group = group[np.argsort(at, kind="stable")]
    values = pd.to_numeric(rows[metric].iloc[group]).to_numpy(dtype=np.float64)
    finite = group[np.isfinite(values)]
    if len(finite) <= count:
        # Cells without a value stand in a strip: any choice that keeps both ends will do.
        some = group[np.linspace(0, len(group) - 1, count).astype(int)]
        return np.union1d(finite, some)
    # Even in the logarithm, in which |V| is mostly drawn.
    x = np.log1p(rows["num_visual"].to_numpy()[finite].astype(np.float64))
    y = np.ascontiguousarray(values[np.isfinite(values)])
    picked = MinMaxLTTBDownsampler().downsample(x, y, n_out=count)
    return finite[picked]
