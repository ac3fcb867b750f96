"""Predicted beside measured, for the cells that have both."""

import pandas as pd

from workbench.analysis.thin import thin
from workbench.aspects import ASPECTS, Aspect
from workbench.figures import agreement
from workbench.telling.material import Material, Subject, drawn
from workbench.telling.page import Block, Table
from workbench.telling.validation import TOLERANCE, both_sources, errors_by
from workbench.telling.words import setting, thinned
from workbench.vocabulary.metrics import METRICS
from workbench.vocabulary.units import plural

TITLE = "Predicted against measured"
COLUMNS = ("cells", "median error", "worst error", "bias")


def agreement_block(material: Material, subject: Subject) -> Block:
    """Ratios over |V|, and errors by metric and system."""
    ratios = both_sources(subject.rows)
    if ratios.empty:
        return Block(
            TITLE,
            (
                "No cell here is both measured and predicted, so this store cannot say how far its"
                " predictions are off; workbench validate predicts every measured cell again.",
            ),
        )
    points = thin(ratios, ("ratio",), most=material.most_points, lines=("metric", "series"))
    caption = (
        f"{setting(subject.rows)}, {plural(ratios['key'].nunique(), 'cell')}.",
        f"The grey band is {TOLERANCE:.0%} about equal. FLOPs and bytes depend on shapes and are"
        " compared whatever the device; seconds only where the prediction is for the card that was"
        " measured. Bars: measured quartiles.",
        thinned(points.drop_duplicates("key"), ratios.drop_duplicates("key")),
    )
    figure = drawn(
        f"{subject.slug}-agreement",
        f"{subject.title}: predicted over measured",
        lambda theme: agreement(
            points, material.looks, theme, "predicted over measured", TOLERANCE
        ),
        caption,
    )
    note = "Error: predicted over measured, less 1. Bias: the median error with its sign."
    tables = (
        Table(
            "Errors of the prediction",
            ("metric", "system", *COLUMNS),
            _rows(ratios, "series"),
            note,
        ),
        Table(
            "Errors of the prediction by |V|",
            ("metric", "|V|", *COLUMNS),
            _rows(ratios.sort_values("num_visual"), "num_visual"),
            note,
        ),
    )
    return Block(TITLE, (), figure, tables)


def _rows(ratios: pd.DataFrame, field: str) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            METRICS[row["metric"]].label,
            f"{row[field]:,}" if field == "num_visual" else str(row[field]),
            f"{row['cells']:,}",
            f"{row['median']:.2%}",
            f"{row['worst']:.2%}",
            f"{row['bias']:+.2%}",
        )
        for row in errors_by(ratios, field).to_dict("records")
    )


ASPECTS.add(
    "validation",
    Aspect(
        order=6,
        page="Validation",
        question="Can the predictions be trusted?",
        icon="fact_check",
        block=agreement_block,
    ),
)
