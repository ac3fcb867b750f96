"""One figure over |V| of rows that somebody chose, with everything that a figure needs besides."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from workbench.analysis import fit
from workbench.analysis.thin import thin
from workbench.figures import DARK, LIGHT, Axes, scaling
from workbench.store import RunInfo
from workbench.telling.view import (
    CAPACITIES,
    all_looks,
    capacities,
    newest_of_each,
    prepared,
    subjects,
)
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.metrics import METRICS


def figure_over_visual(
    frame: pd.DataFrame,
    runs: Sequence[RunInfo],
    metrics: Sequence[str],
    log: bool = True,
    dark: bool = False,
) -> go.Figure:
    """A panel for each of ``metrics`` over |V|, with the fitted curves, of a store's rows.

    ``frame`` is of one subject, with columns as ``Store.frame`` has them; with the CAPACITIES
    among them and the store's ``runs``, the device's capacity is drawn into the panel of
    ``peak_bytes``. Raises RequestError for no metric, one that does not exist or is not among the
    columns, and for rows of no subject or of several.
    """
    if not metrics:
        raise RequestError(f"metrics: none is given; known: {', '.join(METRICS)}")
    for metric in metrics:
        METRICS[metric]  # Raises for an unknown name.
        if metric not in frame:
            raise RequestError(f"metric {metric!r}: is no column of the frame")
    if frame.empty:
        raise RequestError("data: there is no record in it")
    rows = newest_of_each(prepared(frame))
    subject = subjects(rows)
    if len(subject) > 1:
        varying = [name for name in subject[0] if len({str(each[name]) for each in subject}) > 1]
        choices = "; ".join(
            f"{name} {', '.join(sorted({str(each[name]) for each in subject}))}"
            for name in varying
        )
        raise RequestError(
            f"data: of several subjects, which no figure shows together ({choices}); keep the "
            "rows of one"
        )
    _, curves = fit(rows, metrics)
    near = capacities(rows, runs) if runs and set(CAPACITIES) <= set(rows) else {}
    thinned = thin(rows, metrics, len(metrics))
    axes = Axes(log, log)
    return scaling(thinned, curves, all_looks(rows), DARK if dark else LIGHT, metrics, axes, near)
