"""Where each system runs out of memory."""

from dataclasses import replace

import pandas as pd

from workbench.analysis import limits
from workbench.aspects import ASPECTS, Aspect
from workbench.figures import in_order, thresholds
from workbench.telling.material import Material, Subject, drawn
from workbench.telling.page import Block, Figure, Table
from workbench.telling.sentences import (
    at_place,
    place,
    places,
    reach_columns,
    reach_rows,
    reached,
    shared_options,
)
from workbench.telling.verdict import verdict_of
from workbench.telling.words import provenance, setting

TOLERANCE = 0.01
"""A threshold is known where its bracket is no wider than this share."""


MEANING = (
    "A bar runs from the largest |V| that ran, or was predicted to fit, to the smallest that was"
    " out of memory; an arrow stands where the sweep ended first. Killed and failed cells are no"
    " thresholds."
)


def wide_brackets(brackets: pd.DataFrame) -> str | None:
    """How many brackets of ``analysis.limits`` leave a threshold open; None where none does."""
    ends = brackets.dropna(subset=["max_visual", "fails_at"])
    wide = int((ends["fails_at"] > ends["max_visual"] * (1 + TOLERANCE)).sum())
    if not wide:
        return None
    return (
        f"{wide} of {len(brackets)} brackets {'is' if wide == 1 else 'are'} wider than"
        f" {TOLERANCE:.0%}, as a sweep leaves them; workbench limit narrows one by bisection."
    )


def thresholds_block(material: Material, subject: Subject) -> Block:
    """Brackets as ranges; a sweep without an end in memory says so."""
    rows = subject.rows
    tables = tuple(
        Table(
            f"How far each system went, {place(source, device)}"
            + shared_options(in_order(at_place(rows, source, device))),
            reach_columns(source),
            reach_rows(at_place(rows, source, device)),
        )
        for source, device in places(rows)
    )
    brackets = limits(rows)
    if brackets["fails_at"].isna().all():
        return Block(
            "Where the memory ends",
            ("No cell here ran out of memory, so there is no threshold to draw.",),
            None,
            tables,
        )
    sentences = tuple(filter(None, [wide_brackets(brackets)]))
    verdict = verdict_of(subject)
    figure = draw_thresholds(material, subject, rows)
    message = verdict.reach() or reached(verdict.rows, verdict.where)
    return Block("Where the memory ends", sentences, replace(figure, message=message), tables)


def draw_thresholds(material: Material, subject: Subject, rows: pd.DataFrame) -> Figure:
    """The brackets of some rows of a subject as bars."""
    brackets = limits(rows)
    return drawn(
        f"{subject.slug}-thresholds",
        f"{subject.title}: out-of-memory thresholds",
        lambda theme: thresholds(brackets, material.looks, theme),
        (f"{setting(rows)}.", *provenance(rows, bars=False), MEANING),
    )


ASPECTS.add(
    "thresholds",
    Aspect(
        order=3,
        page="Thresholds",
        question="Where does the memory end?",
        icon="vertical_align_top",
        block=thresholds_block,
    ),
)
