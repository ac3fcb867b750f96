"""Where the bytes of the peak go."""

import pandas as pd

from workbench.analysis.thin import thin
from workbench.aspects import ASPECTS, Aspect
from workbench.figures import UNSPLIT, in_order, memory, quantity
from workbench.figures.memory import KIND_NAMES
from workbench.telling.material import Material, Subject, drawn
from workbench.telling.page import Block, Table
from workbench.telling.predicted import ASSUMED, STATES, assumed_rows, states_rows
from workbench.telling.sentences import at_place, place, places
from workbench.telling.verdict import telling_systems, verdict_of
from workbench.telling.view import memory_kinds
from workbench.telling.words import provenance, setting, thinned

MOST = 4
"""Panels that a page has room for, over one range of |V|."""
KINDS = 6
"""Areas that a point is drawn in, about."""
TITLE = "Where the bytes go"
KIND_WORDS = {
    **KIND_NAMES,
    "ballast": "ballast, which stands for the rest of a rank",
}


def memory_block(material: Material, subject: Subject) -> Block:
    """The peak by kind, a panel a system, at the place that has the most cells."""
    rows = subject.rows[subject.rows["peak_bytes"].notna()]
    if rows.empty:
        return Block(TITLE, ("No cell here has a peak.",))
    source, device = max(places(rows), key=lambda each: len(at_place(rows, *each)))
    here, name = at_place(rows, source, device), place(source, device)
    systems = in_order(here)
    telling = here[here["series"].isin(telling_systems(here)[:MOST])]
    points = thin(telling, ("peak_bytes",), KINDS, material.most_points)
    kinds = memory_kinds(points, material.details)
    num_others = len(systems) - MOST
    more = f" {MOST} of {len(systems)} systems are shown; data/ has all." if num_others > 0 else ""
    caption = (
        f"{setting(here)}, {name}.",
        "Bytes at the moment of the peak, device context excluded. Where a record does not split"
        f" its whole peak by kind, the rest is a band of its own.{more}",
        *provenance(telling, bars=False),
        thinned(points, telling),
    )
    near = material.capacities(here)
    figure = drawn(
        f"{subject.slug}-bytes",
        f"{subject.title}: the peak by kind",
        lambda theme: memory(kinds, near, theme, log_x=False),
        caption,
        verdict_of(subject).peaks() or "",
    )
    sentences = tuple(largest_kind(own, name) for _, own in kinds.groupby("system", sort=False))
    return Block(TITLE, sentences, figure, _behind(here, material))


def _behind(rows: pd.DataFrame, material: Material) -> tuple[Table, ...]:
    """Where these are predictions: model states beside deepspeed's estimate, what is assumed."""
    tables = (
        Table(
            "Model states beside deepspeed's estimate", STATES, states_rows(rows, material.details)
        ),
        Table(
            "What the predictions assume of the memory",
            ASSUMED,
            assumed_rows(rows, material.details),
        ),
    )
    return tuple(table for table in tables if table.rows)


def largest_kind(kinds: pd.DataFrame, where: str, name: str = "") -> str:
    """The kind that takes most of one system's peak, at the largest |V| whose record splits it.

    ``name``: what the system is called there, else as its records are.
    """
    split = kinds.groupby("num_visual")["kind"].transform(lambda own: UNSPLIT not in set(own))
    full = kinds[split.astype(bool)]
    kinds = full if len(full) else kinds
    last = kinds[kinds["num_visual"] == kinds["num_visual"].max()]
    total, most = last["bytes"].sum(), last.loc[last["bytes"].idxmax()]
    kind = KIND_WORDS.get(str(most["kind"]), most["kind"])
    return (
        f"{name or most['system']} at |V| = {most['num_visual']:,}:"
        f" {quantity(most['bytes'], 'B')} of {quantity(total, 'B')}"
        f" ({most['bytes'] / total:.0%}) is {kind} ({where})."
    )


ASPECTS.add(
    "memory",
    Aspect(
        order=4,
        page="Memory",
        question="Where do the bytes go?",
        icon="memory",
        block=memory_block,
    ),
)
