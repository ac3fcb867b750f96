"""One store as the pages read it: no more than a page needs, once for each version of the file.

Who ran what is read whole; metrics, which are most of a large store, only for the rows on screen.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import streamlit as st

from workbench.analysis import CONDITIONS, SUBJECT, Kinds, fit, kinds
from workbench.figures import Look
from workbench.store import RecordId, RunInfo, Store
from workbench.store.notes import Note, NoteOf
from workbench.telling.sentences import Pair, pairs
from workbench.telling.view import (
    CAPACITIES,
    Details,
    all_looks,
    capacities,
    newest_of_each,
    prepared,
)

Version = tuple[str, str]
"""The file and its version token: together they keep a cache valid."""
CacheKey = tuple[str, str, str]
"""A version, and which of its rows."""
T = TypeVar("T")


def kinds_of(frame: pd.DataFrame) -> Kinds:
    """The kinds of a frame by subject, conditions, source and device, each with its ``count`` and
    how many of these ran or fit (``ran``): some dozen rows to choose from in the place of all.
    """
    every = kinds(frame, [*SUBJECT, *CONDITIONS, "source", "device"])
    fine = (frame["status"] == "ok").to_numpy(dtype=float)
    ran = np.bincount(every.codes, fine, minlength=len(every.distinct)).astype(int)
    return every._replace(distinct=every.distinct.assign(count=every.counts, ran=ran))


@dataclass(frozen=True)
class Data:
    """One store as the pages see it: never empty."""

    name: str
    version: Version
    frame: pd.DataFrame
    """The store's columns but the metrics, and ``series``: the newest record of each cell, or the
    records of one run."""
    runs: list[RunInfo]
    looks: dict[str, Look]
    """Of every series in the store, so that filters change no colour."""

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.version[0])

    @property
    def kinds(self) -> Kinds:
        """What the frame's rows are of."""
        return self.once("kinds", self.frame, kinds_of)

    @property
    def details(self) -> Details:
        """What records hold beside their metrics, of the cells that are asked for."""
        return _details(self.version)

    @property
    def notes(self) -> dict[NoteOf, Note]:
        """What people wrote on runs and records."""
        return _notes(self.version)

    def whole(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Some of the frame's rows with every metric and the CAPACITIES."""
        figures = _figures(self.identity(rows), rows)
        return rows.drop(columns="num_samples").join(figures)

    def capacities(self, rows: pd.DataFrame) -> dict[str, int]:
        """``view.capacities`` of some rows with metrics."""
        return self.once("capacities", rows, lambda own: capacities(own, self.runs))

    def fit(self, rows: pd.DataFrame, metrics: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """``analysis.fit`` of some rows with metrics."""
        return self.once(f"fit of {metrics}", rows, lambda own: fit(own, metrics))

    def pairs(self, rows: pd.DataFrame) -> list[Pair]:
        """``sentences.pairs`` of some rows with metrics."""
        return self.once("pairs", rows, lambda own: pairs(own, self.details))

    def samples(self, rows: pd.DataFrame) -> dict[RecordId, list[float]]:
        """The seconds of every iteration, of those of some of the frame's rows that were timed."""
        with Store.open(self.path) as store:
            return store.samples(rows.index)

    def once(self, what: str, rows: pd.DataFrame, make: Callable[[pd.DataFrame], T]) -> T:
        """What ``make`` finds out from some of the frame's rows, kept under the name ``what``.

        It is shared: nothing may change it in place.
        """
        return _once(self.identity(rows), what, make, rows)

    def identity(self, rows: pd.DataFrame) -> CacheKey:
        """What tells some of the frame's rows from any others."""
        # A row's label is its number in the file.
        return *self.version, hashlib.sha256(rows.index.to_numpy().tobytes()).hexdigest()


# A resource is shared, not copied for each reader: nothing may change a frame in place.
@st.cache_resource(show_spinner=False, max_entries=4)
def read(
    version: Version,
) -> tuple[pd.DataFrame, list[RunInfo], dict[str, Look], str | None]:
    """All records without metrics, the runs, the look of every series, and what is left out."""
    with Store.open(version[0]) as store:
        left_out, runs = store.left_out(), store.runs()
        frame = prepared(store.frame(metrics=()))
    if left_out is not None:
        ids = set(frame["run"].unique())
        runs = [run for run in runs if run.id in ids]
    return frame, runs, all_looks(frame), left_out


@st.cache_resource(show_spinner=False, max_entries=8)
def of_run(version: Version, run: str | None) -> pd.DataFrame:
    """The records of a run; for None the newest of each cell."""
    frame, *_ = read(version)
    return newest_of_each(frame) if run is None else frame[frame["run"] == run]


@st.cache_resource(show_spinner=False, max_entries=16)
def _figures(identity: CacheKey, _rows: pd.DataFrame) -> pd.DataFrame:
    with Store.open(identity[0]) as store:
        return store.figures(_rows.index, details=CAPACITIES)


@st.cache_resource(show_spinner=False, max_entries=128)
def _once(
    identity: CacheKey, what: str, _make: Callable[[pd.DataFrame], Any], _rows: pd.DataFrame
) -> Any:
    return _make(_rows)


@st.cache_resource(show_spinner=False, max_entries=4)
def _details(version: Version) -> Details:
    return Details(Path(version[0]))


@st.cache_resource(show_spinner=False, max_entries=4)
def _notes(version: Version) -> dict[NoteOf, Note]:
    with Store.open(version[0]) as store:
        return store.notes()
