"""What every page needs first: the chosen store, or help where there is none to show."""

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import streamlit as st

from workbench.analysis import fit
from workbench.dashboard.stores import ENVIRONMENT_NAME, choices, inside, named_store
from workbench.dashboard.uploads import uploaded
from workbench.errors import RequestError
from workbench.figures import Look
from workbench.report.sentences import Pair, pairs
from workbench.report.text import markdown
from workbench.report.view import CAPACITIES, Details, all_looks, newest_of_each, prepared
from workbench.report.words import thinned
from workbench.store import RecordId, RunInfo, Store, StoreError, version_token
from workbench.store_notes import Note, NoteOf

STYLE = "<style>.stMainBlockContainer {padding-top: 3.2rem;} h1 {padding-top: 0;}</style>"
REFRESH_S = 5.0
FILL = "workbench sweep probes/default.py"


@dataclass(frozen=True)
class Data:
    """One store as the pages see it: never empty."""

    name: str
    path: Path
    frame: pd.DataFrame
    """The store's columns and ``series``, newest record of each cell or of one run."""
    runs: list[RunInfo]
    looks: dict[str, Look]
    """Of every series in the store, so that filters change no colour."""
    token: str

    @property
    def details(self) -> Details:
        """What records hold beside their metrics, of the cells that are asked for."""
        return _details(str(self.path), self.token)

    @property
    def notes(self) -> dict[NoteOf, Note]:
        """What people wrote on runs and records."""
        return _notes(str(self.path), self.token)

    def samples(self, run: str) -> dict[RecordId, list[float]]:
        """The seconds of every timed cell of a run."""
        return _samples(str(self.path), self.token, run)

    def _identity(self, rows: pd.DataFrame) -> tuple[str, ...]:
        # The rows of a frame that is always the same for one version of one store.
        kept = hashlib.sha256(rows.index.to_numpy().tobytes()).hexdigest()
        return str(self.path), self.token, kept

    def fit(self, rows: pd.DataFrame, metrics: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """``analysis.fit`` of some of the frame's rows, done once."""
        return _fitted(self._identity(rows), tuple(metrics), rows)

    def pairs(self, rows: pd.DataFrame) -> list[Pair]:
        """``sentences.pairs`` of some of the frame's rows, done once."""
        return _paired(self._identity(rows), rows, self)


def say_thinned(drawn: pd.DataFrame, rows: pd.DataFrame) -> None:
    """One line where a figure leaves points out."""
    if len(drawn) < len(rows):
        st.caption(thinned(drawn, rows))


# A resource is shared, not copied for each reader: nothing may change a frame in place.
@st.cache_resource(show_spinner=False, max_entries=4)
def _read(path: str, token: str) -> tuple[pd.DataFrame, pd.DataFrame, list[RunInfo]]:
    """All records, the newest of each cell, and the runs: what every page needs.

    ``token`` changes with the store, which keeps this cache valid.
    """
    with Store.open(path) as store:
        frame = prepared(store.frame(details=CAPACITIES))
        return frame, newest_of_each(frame), store.runs()


@st.cache_resource(show_spinner=False, max_entries=4)
def _details(path: str, token: str) -> Details:
    return Details(Path(path))


@st.cache_resource(show_spinner=False, max_entries=4)
def _notes(path: str, token: str) -> dict[NoteOf, Note]:
    with Store.open(path) as store:
        return store.notes()


@st.cache_resource(show_spinner=False, max_entries=8)
def _samples(path: str, token: str, run: str) -> dict[RecordId, list[float]]:
    with Store.open(path) as store:
        return store.samples(run)


@st.cache_resource(show_spinner=False, max_entries=64)
def _fitted(
    identity: tuple[str, ...], metrics: tuple[str, ...], _rows: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    return fit(_rows, metrics)


@st.cache_resource(show_spinner=False, max_entries=64)
def _paired(identity: tuple[str, ...], _rows: pd.DataFrame, _store: "Data") -> list[Pair]:
    return pairs(_rows, _store.details)


def data(choose_run: bool = True) -> Data:
    """The store of the sidebar's picker; where there is nothing to show, help and the end.

    Without ``choose_run`` the frame holds every record of every run.
    """
    st.html(STYLE)
    root, named = Path.cwd(), named_store(sys.argv[1:], os.environ.get(ENVIRONMENT_NAME))
    found = choices(root, named) | uploaded()
    wanted = st.query_params.get("store")
    if wanted is not None and wanted not in found:
        _not_found(root, wanted, list(found))
    if not found:
        _nothing_here(root)
    name = _picked(wanted, list(found))
    path = found[name]
    try:
        token = version_token(path)
        frame, newest, runs = _read(str(path), token)
    except (RequestError, StoreError) as error:
        _broken(name, error)
    _watch(str(path), token)
    if frame.empty:
        _empty(name)
    looks = all_looks(frame)
    if choose_run:
        chosen = _one_run(runs)
        frame = newest if chosen is None else frame[frame["run"] == chosen]
    return Data(name, path, frame, runs, looks, token)


def keep_store() -> None:
    """The sidebar's picker on a page that needs no store, so that the others find it again."""
    named = named_store(sys.argv[1:], os.environ.get(ENVIRONMENT_NAME))
    found = choices(Path.cwd(), named) | uploaded()
    if found:
        wanted = st.query_params.get("store")
        _picked(wanted if wanted in found else None, list(found))


def _picked(wanted: str | None, names: list[str]) -> str:
    """The store that the link or the reader picked; the link names it even where it is the first.

    A widget bound to the link would leave its first choice out of it, and the link would show
    another store once a newer one is there.
    """
    before, now = (st.session_state.get(key) for key in ("store of this session", "store"))
    if wanted is not None and wanted != before:
        now = wanted
    elif now is None:
        # A reader who leaves a page before it is all drawn leaves the widget's value there.
        now = before
    # Said again in every run: a widget on another page would start from its first choice.
    st.session_state["store"] = now if now in names else names[0]
    with st.sidebar:
        name = str(st.selectbox("Store", names, key="store"))
    st.session_state["store of this session"] = name
    st.query_params["store"] = name
    return name


def _one_run(runs: list[RunInfo]) -> str | None:
    """The run that the reader picked, None for the newest record of each cell."""
    if len(runs) < 2:
        return None
    newest_of_each = "newest of each cell"
    options = [newest_of_each, *[run.id for run in reversed(runs)]]
    with st.sidebar:
        picked = st.selectbox("Run", options, key="run", bind="query-params")
    return None if picked == newest_of_each else picked


@st.fragment(run_every=REFRESH_S)
def _watch(path: str, token: str) -> None:
    """Draw the page again once a running sweep has added to the store."""
    try:
        now = version_token(path)
    except RequestError:
        now = ""
    if now != token:
        st.rerun()


def _stop(title: str, text: str, kind: str = "info") -> None:
    st.title(title)
    {"info": st.info, "warning": st.warning, "error": st.error}[kind](text)
    st.stop()


def _nothing_here(root: Path) -> None:
    _stop(
        "No store yet",
        f"There is no `.db` file in **{markdown(root.name or '/')}** or the folders below it. "
        "A sweep makes one; on two CPU cores the default takes about four minutes:\n\n"
        f"```\n{FILL}\n```\n\nThis page then needs one reload.",
    )


def _not_found(root: Path, wanted: str, names: list[str]) -> None:
    try:
        inside(root, wanted)
        reason = "There is no such store here."
    except RequestError:
        reason = (
            "A link can only name a store inside the folder in which the dashboard was started."
        )
    links = "\n".join(f"- {markdown(name)}" for name in names[:20]) or "- none"
    st.title("This link leads nowhere")
    st.error(f"**{markdown(wanted[:120])}**: {reason}")
    st.markdown(f"Stores here:\n\n{links}")
    if st.button("Open the newest store", type="primary", disabled=not names):
        st.query_params.clear()
        st.rerun()
    st.stop()


def _broken(name: str, error: Exception) -> None:
    _stop(
        "This store cannot be read",
        f"{markdown(str(error))}\n\nPick another store on the left. If **{markdown(name)}** was "
        "copied while a sweep wrote to it, copy it again once the sweep is over.",
        "error",
    )


def _empty(name: str) -> None:
    _stop(
        "No records yet",
        f"**{markdown(name)}** is a store, and nothing has been added to it. A sweep fills it, "
        f"and this page follows while it runs:\n\n```\n{FILL} --store {name}\n```",
    )
