"""What every part of a report reads: the store's frame, its subjects, and how each is drawn."""

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from workbench.figures import DARK, LIGHT, SCALING_METRICS, Look, Theme
from workbench.store import RecordId, RunInfo, Store
from workbench.store.notes import Note, NoteOf
from workbench.telling import spent, words
from workbench.telling.page import Figure
from workbench.telling.sentences import Pair, at_place, pairs, places, says
from workbench.telling.view import (
    CAPACITIES,
    Details,
    all_looks,
    capacities,
    newest_of_each,
    prepared,
    subjects,
    where,
)
from workbench.vocabulary.errors import Failure
from workbench.vocabulary.units import plural

PAGE_POINTS, LEAST_POINTS = 1_500, 100
"""Of all figures of one kind, and of each at least: some 500 bytes a point, in two themes."""
FILL = "workbench sweep {} --store {}"


class NothingToReport(Failure):
    """The store holds nothing to report. The message names the sweep that would fill it."""


@dataclass(frozen=True)
class Subject:
    """The cells that one set of figures shows together: a model, a scope, a pass."""

    title: str
    slug: str
    facts: Mapping[str, Any]
    """What all of its cells have in common."""
    rows: pd.DataFrame
    pairs: Sequence[Pair]
    """Each system beside each baseline."""


@dataclass(frozen=True)
class Material:
    """A store, opened and prepared."""

    path: Path
    frame: pd.DataFrame
    """The newest record of each (key, source, device), with ``series``."""
    num_cells: int
    """Cells of the store, also those that the question does not ask for."""
    runs: Sequence[RunInfo]
    details: Details
    looks: Mapping[str, Look]
    subjects: tuple[Subject, ...]
    """Those of which a cell has a figure."""
    notes: Mapping[NoteOf, Note]
    """What stands on its runs and records."""
    against: Path | None = None
    """The earlier store, where two are compared."""

    @cached_property
    def spoken(self) -> tuple[Subject, ...]:
        """The subjects, the one that says most first: measured on a card, predicted, measured on
        a CPU; a whole model before a layer, what went to a larger |V| first, a training step
        before a forward.
        """
        return tuple(sorted(self.subjects, key=_weight, reverse=True))

    @cached_property
    def telling(self) -> Set[RecordId]:
        """The records that say how long their parts took."""
        return self.details.holding(spent.PARTS)

    @property
    def most_points(self) -> int:
        """Points that one figure may have, so that the page stays small."""
        return max(PAGE_POINTS // max(len(self.subjects), 1), LEAST_POINTS)

    def capacities(self, rows: pd.DataFrame) -> dict[str, int]:
        """Bytes that a process can have, by device name."""
        return capacities(rows, self.runs)


def _weight(subject: Subject) -> tuple[int, int, int, int]:
    scope, pass_ = subject.facts["scope"], subject.facts["pass"]
    ran = subject.rows[subject.rows["status"] == "ok"]
    most = max((says(*each) for each in places(ran)), default=0)
    lines = [at_place(ran, *each) for each in places(ran) if says(*each) == most]
    reach = max((rows["num_visual"].max() for rows in lines), default=None)
    return (
        most,
        ("layer", "decoder", "lvlm").index(scope),
        -1 if reach is None or pd.isna(reach) else int(reach),
        ("decode", "forward", "train").index(pass_),
    )


def gather(
    path: Path,
    keep: Callable[[pd.DataFrame], pd.DataFrame],
    fill: str,
    against: Path | None = None,
) -> Material:
    """A store's material for one question; ``keep`` chooses its rows, ``fill`` names the probe.

    Raises NothingToReport where no row is left or none has a figure; RequestError, StoreError.
    """
    with Store.open(path) as store:
        whole, runs = store.frame(details=CAPACITIES), store.runs()
        notes = store.notes()
    details = Details(path)
    command = FILL.format(fill, path)
    if whole.empty:
        raise NothingToReport(f"{path}: no records yet; fill it with: {command}")
    every = newest_of_each(prepared(whole))
    frame = keep(every)
    if frame.empty:
        raise NothingToReport(
            f"{path}: none of its {plural(len(every), 'cell')} answers the question; fill"
            f" it with: {command}"
        )
    if frame[list(SCALING_METRICS)].isna().all(axis=None):
        raise NothingToReport(
            f"{path}: {words.endings(frame)}, and no cell has a figure to report; once the cause"
            f" is removed, run the sweep again: {command}"
        )
    split = [(facts, where(frame, facts)) for facts in subjects(frame)]
    # A subject of which nothing ran has no figure; its cells are in the table of those.
    plotted = [
        (f, rows) for f, rows in split if rows[list(SCALING_METRICS)].notna().any(axis=None)
    ]
    titles = _titles([facts for facts, _ in plotted])
    return Material(
        path,
        frame,
        len(every),
        runs,
        details,
        all_looks(frame),
        tuple(
            Subject(title, _slug(number, title), facts, rows, pairs(rows, details))
            for number, (title, (facts, rows)) in enumerate(zip(titles, plotted, strict=True), 1)
        ),
        notes,
        against,
    )


def _titles(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """'mistral-7b-v0.3 · layer · train', and what else tells one section from another."""
    varying = [key for key in facts[0] if len({str(f[key]) for f in facts}) > 1]
    more = [key for key in varying if key not in ("model", "scope", "pass")]
    return [
        " · ".join([f["model"], f["scope"], f["pass"], *(f"{key} {f[key]}" for key in more)])
        for f in facts
    ]


def _slug(number: int, title: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "scaling"
    return f"{number:02d}-{name}"


def drawn(
    slug: str,
    title: str,
    draw: Callable[[Theme], go.Figure],
    caption: Sequence[str],
    message: str = "",
) -> Figure:
    """A figure in both themes."""
    return Figure(slug, title, draw(LIGHT), draw(DARK), tuple(filter(None, caption)), message)
