"""Predicted beside measured, for the cells that have both."""

import pandas as pd

from workbench.figures import agreement
from workbench.record import METRICS
from workbench.report.material import Material, Subject, drawn
from workbench.report.page import Block, Table
from workbench.report.validation import TOLERANCE, both_sources
from workbench.report.words import plural, setting

TITLE = "Predicted against measured"
COLUMNS = ("metric", "system", "cells", "median error", "worst error", "bias")


def agreement_block(material: Material, subject: Subject) -> Block:
    """Ratios over |V|, and errors by metric and system."""
    found = both_sources(subject.rows)
    if found.empty:
        return Block(TITLE, (
            "No cell here is both measured and predicted, so this store cannot say how far its"
            " predictions are off; workbench validate predicts every measured cell again.",
        ))  # fmt: skip
    caption = (
        f"{setting(subject.rows)}, {plural(found['key'].nunique(), 'cell')}.",
        f"The grey band is {TOLERANCE:.0%} about equal. FLOPs and bytes depend on shapes and are"
        " compared whatever the device; seconds only where the prediction is for the card that was"
        " measured. Bars: measured quartiles.",
    )
    figure = drawn(
        f"{subject.slug}-agreement", f"{subject.title}: predicted over measured",
        lambda theme: agreement(found, material.looks, theme, "predicted over measured",
                                TOLERANCE),
        caption,
    )  # fmt: skip
    rows = tuple(
        _errors(str(metric), str(series), own["ratio"] - 1)
        for (metric, series), own in found.groupby(["metric", "series"], sort=False)
    )
    note = "Error: predicted over measured, less 1. Bias: the median error with its sign."
    return Block(TITLE, (), figure, (Table("Errors of the prediction", COLUMNS, rows, note),))


def _errors(metric: str, series: str, errors: pd.Series) -> tuple[str, ...]:
    size = errors.abs()
    return (METRICS[metric].label, series, f"{len(errors):,}", f"{size.median():.2%}",
            f"{size.max():.2%}", f"{errors.median():+.2%}")  # fmt: skip
