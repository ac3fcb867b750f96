"""What every page needs first: the chosen store, or help where there is none to show."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
import streamlit as st

from workbench.dashboard import states
from workbench.dashboard.reading import Data, of_run, read
from workbench.dashboard.stores import ENVIRONMENT_NAME, choices, named_store
from workbench.dashboard.uploads import uploaded
from workbench.errors import RequestError
from workbench.report.text import markdown
from workbench.report.words import thinned
from workbench.store import RunInfo, StoreError, version_token

# Columns go below one another, and a figure of several panels scrolls, before either is squeezed.
STYLE = """<style>
.stMainBlockContainer {padding: 3.2rem clamp(1rem, 4vw, 5rem) 4rem}
h1 {padding-top: 0}
.stHorizontalBlock {flex-wrap: wrap}
.stColumn {min-width: min(12rem, 100%)}
.stColumn .stColumn {min-width: min(7rem, 100%)}
[class*="st-key-scrolls-"] {overflow-x: auto}
[class*="st-key-scrolls-"] > * {min-width: 54rem}
</style>"""
REFRESH_S = 5.0


def say_thinned(drawn: pd.DataFrame, rows: pd.DataFrame) -> None:
    """One line where a figure leaves points out."""
    if len(drawn) < len(rows):
        st.caption(thinned(drawn, rows))


def data(choose_run: bool = True) -> Data:
    """The store of the sidebar's picker; where there is nothing to show, help and the end.

    Without ``choose_run`` the frame holds every record of every run.
    """
    st.html(STYLE)
    found, wanted = stores_here(), st.query_params.get("store") or None
    if wanted is not None and wanted not in found:
        states.not_found(Path.cwd(), wanted, list(found))
    if not found:
        states.nothing_here(Path.cwd())
    name = _picked(wanted, list(found))
    store = opened(name, found[name])
    if not choose_run:
        return store
    return replace(store, frame=of_run(store.version, _one_run(store.runs)))


def stores_here() -> dict[str, Path]:
    """The stores to pick from, by the name that a link has for each."""
    named = named_store(sys.argv[1:], os.environ.get(ENVIRONMENT_NAME))
    return choices(Path.cwd(), named) | uploaded()


def opened(name: str, path: Path) -> Data:
    """A store with every record of every run; where there is none to show, help and the end."""
    try:
        version = str(path), version_token(path)
        frame, runs, looks, left_out = read(version)
    except (RequestError, StoreError) as error:
        states.broken(name, error)
    _watch(*version)
    if left_out is not None:
        st.warning(markdown(f"This store is very large: {left_out}."))
    if frame.empty:
        states.empty(name)
    return Data(name, version, frame, runs, looks)


@contextmanager
def telling_faults() -> Iterator[None]:
    """Around a page: what turns out unreadable only while it is drawn is said on it."""
    try:
        yield
    except (RequestError, StoreError) as error:
        st.error(markdown(error))


def keep_store() -> None:
    """The sidebar's picker on a page that needs no store, so that the others find it again."""
    found = stores_here()
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
