"""Where each system runs out of memory."""

from workbench.analysis import limits
from workbench.figures import thresholds
from workbench.report.material import Material, Subject, drawn
from workbench.report.page import Block, Table
from workbench.report.sentences import at_place, place, places, reach_columns, reach_rows
from workbench.report.words import setting

TOLERANCE = 0.01
"""A threshold is known where its bracket is no wider than this share."""


def thresholds_block(material: Material, subject: Subject) -> Block:
    """Brackets as ranges; a sweep without an end in memory says so."""
    rows = subject.rows
    tables = tuple(
        Table(
            f"How far each system went, {place(source, device)}",
            reach_columns(source),
            reach_rows(at_place(rows, source, device)),
        )
        for source, device in places(rows)
    )
    found = limits(rows)
    if found["fails_at"].isna().all():
        return Block(
            "Where the memory ends",
            ("No cell here ran out of memory, so there is no threshold to draw.",),
            None,
            tables,
        )
    ends = found.dropna(subset=["max_visual", "fails_at"])
    wide = int((ends["fails_at"] > ends["max_visual"] * (1 + TOLERANCE)).sum())
    sentences = (
        (
            f"{wide} of {len(found)} brackets are wider than {TOLERANCE:.0%}, as a sweep leaves"
            " them; workbench limit narrows one by bisection.",
        )
        if wide
        else ()
    )
    caption = (
        f"{setting(rows)}.",
        "A bar runs from the largest |V| that ran, or was predicted to fit, to the smallest that"
        " was out of memory; an arrow stands where the sweep ended first. Killed and failed cells"
        " are no thresholds.",
    )
    figure = drawn(
        f"{subject.slug}-thresholds",
        f"{subject.title}: out-of-memory thresholds",
        lambda theme: thresholds(found, material.looks, theme),
        caption,
    )
    return Block("Where the memory ends", sentences, figure, tables)
