"""One store as the pages read it: no more than a page needs, once for each version of the file.

Who ran what is read whole; metrics, which are most of a large store, only for the rows on screen.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import streamlit as st

from workbench.analysis import fit
from workbench.figures import Look
from workbench.report.sentences import Pair, pairs
from workbench.report.view import CAPACITIES, Details, capacities, prepared
from workbench.store import RecordId, RunInfo, Store
from workbench.store_notes import Note, NoteOf

Version = tuple[str, str]
"""The file and its version token: together they keep a cache valid."""


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

    def whole(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Some of the frame's rows with every metric."""
        figures = _figures(self._identity(rows), rows)
        return rows.drop(columns="num_samples").join(figures)

    def capacities(self, rows: pd.DataFrame) -> dict[str, int]:
        """``view.capacities`` of some of the frame's rows."""
        return _capacities(self._identity(rows), rows, self.runs)

    def fit(self, rows: pd.DataFrame, metrics: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """``analysis.fit`` of some rows with metrics."""
        return _fitted(self._identity(rows), tuple(metrics), rows)

    def pairs(self, rows: pd.DataFrame) -> list[Pair]:
        """``sentences.pairs`` of some rows with metrics."""
        return _paired(self._identity(rows), rows, self.details)

    @property
    def details(self) -> Details:
        """What records hold beside their metrics, of the cells that are asked for."""
        return _details(self.version)

    @property
    def notes(self) -> dict[NoteOf, Note]:
        """What people wrote on runs and records."""
        return _notes(self.version)

    def samples(self, rows: pd.DataFrame) -> dict[RecordId, list[float]]:
        """The seconds of every iteration, of those of some of the frame's rows that were timed."""
        return _samples(self._identity(rows), rows)

    def _identity(self, rows: pd.DataFrame) -> tuple[str, str, str]:
        # A row's label is its number in the file.
        return *self.version, hashlib.sha256(rows.index.to_numpy().tobytes()).hexdigest()


# A resource is shared, not copied for each reader: nothing may change a frame in place.
@st.cache_resource(show_spinner=False, max_entries=4)
def read(version: Version) -> tuple[pd.DataFrame, list[RunInfo]]:
    """All records without metrics, and the runs."""
    with Store.open(version[0]) as store:
        return prepared(store.frame(metrics=())), store.runs()


@st.cache_resource(show_spinner=False, max_entries=16)
def _figures(identity: tuple[str, str, str], _rows: pd.DataFrame) -> pd.DataFrame:
    with Store.open(identity[0]) as store:
        return store.figures(_rows.index)


@st.cache_resource(show_spinner=False, max_entries=64)
def _capacities(
    identity: tuple[str, str, str], _rows: pd.DataFrame, _runs: list[RunInfo]
) -> dict[str, int]:
    with Store.open(identity[0]) as store:
        said = store.figures(_rows.index, metrics=(), details=CAPACITIES)
    return capacities(_rows[["source", "device", "run"]].join(said[[*CAPACITIES]]), _runs)


@st.cache_resource(show_spinner=False, max_entries=64)
def _fitted(
    identity: tuple[str, str, str], metrics: tuple[str, ...], _rows: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    return fit(_rows, metrics)


@st.cache_resource(show_spinner=False, max_entries=64)
def _paired(identity: tuple[str, str, str], _rows: pd.DataFrame, _details: Details) -> list[Pair]:
    return pairs(_rows, _details)


@st.cache_resource(show_spinner=False, max_entries=4)
def _details(version: Version) -> Details:
    return Details(Path(version[0]))


@st.cache_resource(show_spinner=False, max_entries=4)
def _notes(version: Version) -> dict[NoteOf, Note]:
    with Store.open(version[0]) as store:
        return store.notes()


@st.cache_resource(show_spinner=False, max_entries=8)
def _samples(identity: tuple[str, str, str], _rows: pd.DataFrame) -> dict[RecordId, list[float]]:
    with Store.open(identity[0]) as store:
        return store.samples(_rows.index)
