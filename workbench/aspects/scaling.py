"""FLOPs, peak memory and seconds over |V|, with the fitted terms."""

from workbench.analysis import fit
from workbench.analysis.thin import thin
from workbench.aspects import ASPECTS, Aspect
from workbench.figures import SCALING_METRICS, in_order, scaling
from workbench.telling import words
from workbench.telling.fits import fit_rows
from workbench.telling.material import Material, Subject, drawn
from workbench.telling.page import Block, Table
from workbench.telling.sentences import at_place, places, shared_options
from workbench.telling.verdict import verdict_of

NOTE = (
    "Least squares weighted by 1/y²; in parentheses the 95 % interval. A predicted line has no"
    " noise: its interval says how well the form fits. The shape is the smallest that the points"
    " do not refute."
)


def scaling_block(material: Material, subject: Subject) -> Block:
    """The figure of the report."""
    rows = subject.rows
    fits, curves = fit(rows, SCALING_METRICS)
    near = material.capacities(rows)
    banded = bool(curves["low"].notna().any())
    points = thin(rows, SCALING_METRICS, len(SCALING_METRICS), material.most_points)
    figure = drawn(
        subject.slug,
        f"{subject.title}: FLOPs, peak memory and seconds per iteration over |V|",
        lambda theme: scaling(points, curves, material.looks, theme, capacities=near),
        [*words.figure_caption(rows, SCALING_METRICS, banded), words.thinned(points, rows)],
        verdict_of(subject).growth(at_place(fits, *places(rows)[0])),
    )
    tables: tuple[Table, ...] = ()
    if len(fits):
        columns, cells = fit_rows(fits, rows)
        title = f"Fitted terms, y = a + b·|V| + c·|V|²{shared_options(in_order(fits))}"
        tables = (Table(title, columns, cells, NOTE),)
    return Block("How the cost grows", figure=figure, tables=tables)


ASPECTS.add(
    "scaling",
    Aspect(
        order=1,
        page="Scaling",
        question="How does it scale?",
        icon="show_chart",
        block=scaling_block,
    ),
)
