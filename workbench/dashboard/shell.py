"""What every page needs first: the chosen store, or help where there is none to show."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from pathlib import Path

import pandas as pd
import streamlit as st

from workbench.dashboard import states
from workbench.dashboard.reading import Data, of_run, read
from workbench.dashboard.stores import ENVIRONMENT_NAME, choices, named_store
from workbench.dashboard.tables import STYLE as TABLES
from workbench.dashboard.uploads import uploaded
from workbench.report.glossary import GLOSSARY
from workbench.store import RunInfo, StoreError, version_token
from workbench.telling.text import markdown, unbroken
from workbench.telling.words import thinned
from workbench.vocabulary.errors import RequestError

# Columns go below one another before they are squeezed; so do panels, of which width.py decides.
STYLE = f"""<style>
.stMainBlockContainer {{padding: 3.2rem clamp(1rem, 4vw, 5rem) 4rem}}
.stMain h1 {{padding-top: 0; overflow-wrap: anywhere}}
.st-key-page-width {{display: none}}
.st-key-answer p {{font-size: 1.35rem; font-weight: 600; line-height: 1.35}}
.glossary {{font-size: .8rem; opacity: .75; margin: 0}}
.glossary abbr {{text-decoration: underline dotted; cursor: help}}
@media (max-width: 640px) {{.st-key-answer p {{font-size: 1.1rem}}
  .stMain h1 {{font-size: 1.7rem}}}}
.stHorizontalBlock {{flex-wrap: wrap}}
.stColumn {{min-width: min(12rem, 100%)}}
.stColumn .stColumn {{min-width: min(7rem, 100%)}}
.stButtonGroup button {{height: auto; max-width: 100%}}
.stButtonGroup button p {{white-space: normal; text-align: left}}
.stButtonGroup, .stButtonGroup > div {{flex-wrap: wrap; max-width: 100%}}
@media (max-width: 1280px) {{.st-key-in-pairs .stColumn {{min-width: min(16rem, 100%)}}
  .st-key-in-rows .stColumn {{min-width: 100%}}}}
{TABLES}</style>"""
REFRESH_S = 5.0
SENTENCES = 3
"""Sentences that stand on top of a page; more are folded."""


def answer(sentences: Sequence[str | None], basis: str = "") -> None:
    """The answer on top of a page: one sentence large, two more below, the rest folded.

    ``basis`` says what they are of. Under it stand the field's words, each with its meaning.
    """
    lines = [sentence for sentence in sentences if sentence]
    parts = [split_basis(sentence) for sentence in lines]
    caption = ""
    for number, (sentence, of) in enumerate(parts[:SENTENCES]):
        if number == 0:
            with st.container(key="answer"):
                st.markdown(whole_sizes(sentence))
        else:
            st.markdown(whole_sizes(sentence))
        if number == 0:
            caption = basis or of
            _caption(caption)
        elif more := _beyond(of, caption):
            _caption(more)
    fold(lines[SENTENCES:])
    words = " · ".join(
        f'<abbr title="{escape(meaning)}">{escape(word)}</abbr>'
        for word, meaning in GLOSSARY.items()
    )
    st.html(f'<p class="glossary">{words}</p>')


def whole_sizes(sentence: str) -> str:
    """A sentence as Markdown in which no line ends within '|V| = 9,000'."""
    return markdown(unbroken(sentence)).replace("\\|V\\| = ", _SIZE)


_SIZE = "\\|\u2060V\\|\u2060\u00a0=\u00a0"
"""Word joiners and blanks that do not break: a line may end behind an upright bar."""


def _caption(basis: str) -> None:
    """What a sentence is of, in small; first whether it was measured or predicted."""
    kinds = {"measured on": ":green-badge[measured]", "predicted for": ":orange-badge[predicted]"}
    badge = " ".join(badge for words, badge in kinds.items() if words in basis)
    if basis:
        # A caption would dim the badge with its words.
        st.markdown(f"{badge} :small[:gray[{markdown(basis)}]]".strip())


def _beyond(basis: str, caption: str) -> str:
    """What of a sentence's basis was not said of the first: both are parts between commas."""
    parts, earlier = basis.split(", "), caption.split(", ")
    shared = next(
        (place for place, part in enumerate(parts) if earlier[place : place + 1] != [part]),
        len(parts),
    )
    rest = parts[shared:]
    return ", ".join(rest) if set(rest) - set(earlier) else ""


def split_basis(sentence: str) -> tuple[str, str]:
    """A sentence and what it is of, which stands in parentheses at its end: '(…, cpu).'."""
    match = _BASIS.fullmatch(sentence)
    return (f"{match[1]}.", match[2]) if match else (sentence, "")


_BASIS = re.compile(r"(.+) \(([^()]*(?:measured on|predicted for)[^()]*)\)\.")


def fold(sentences: Sequence[str]) -> None:
    """Sentences below a line that opens them; nothing for none."""
    if sentences:
        with st.expander(f"More in words ({len(sentences)})"):
            _list(sentences)


def fold_comparisons(make: Callable[[], Sequence[str]]) -> None:
    """Every comparison as a sentence, made once the reader opens them: they take their time."""
    label = "Every comparison in words"
    with st.expander(label, key="comparisons", on_change="rerun") as part:
        if part.open:
            _list(make())


def _list(sentences: Sequence[str]) -> None:
    st.markdown("\n".join(f"- {markdown(sentence)}" for sentence in sentences))


def say_thinned(drawn: pd.DataFrame, rows: pd.DataFrame) -> None:
    """One line where a figure leaves points out."""
    if len(drawn) < len(rows):
        st.caption(thinned(drawn, rows))


def data(choose_run: bool = True) -> Data:
    """The store of the sidebar's picker; where there is nothing to show, help and the end.

    Without ``choose_run`` the frame holds every record of every run.
    """
    st.html(STYLE)
    stores, query = stores_here(), st.query_params.get("store") or None
    if query is not None and query not in stores:
        states.not_found(Path.cwd(), query, list(stores))
    if not stores:
        states.nothing_here(Path.cwd())
    name = _picked(query, list(stores))
    store = opened(name, stores[name])
    if not choose_run:
        return store
    return replace(store, frame=of_run(store.version, _one_run(store.runs)))


def newest(store: Data) -> Data:
    """The store with the newest record of each cell alone."""
    return replace(store, frame=of_run(store.version, None))


def stores_here() -> dict[str, Path]:
    """The stores to pick from, by the name that a link has for each."""
    path = named_store(sys.argv[1:], os.environ.get(ENVIRONMENT_NAME))
    return choices(Path.cwd(), path) | uploaded()


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


def frame_at_hand() -> pd.DataFrame | None:
    """The picked store's records without metrics, on a page that needs no store; None without one.

    The picker stands there in any case, so that the other pages find the store again.
    """
    stores = stores_here()
    if not stores:
        return None
    query = st.query_params.get("store")
    name = _picked(query if query in stores else None, list(stores))
    try:
        frame, *_ = read((str(stores[name]), version_token(stores[name])))
    except (RequestError, StoreError):
        return None  # The other pages say what is wrong with it.
    return frame if len(frame) else None


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
