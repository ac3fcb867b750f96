"""Where the time goes: by part and by operator, from stored traces or as predicted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from workbench.analysis import marks, short_names, together
from workbench.aspects import ASPECTS
from workbench.aspects.time import GUESSED, TRACED, most_of
from workbench.dashboard.answers import choose_place
from workbench.dashboard.controls import one, several_systems, subject
from workbench.dashboard.reading import Data
from workbench.dashboard.save import show, theme
from workbench.dashboard.shell import answer, data
from workbench.dashboard.stores import sibling_store
from workbench.dashboard.tables import draw_table
from workbench.figures import in_order, quantity, spent
from workbench.store import RecordId
from workbench.telling.sentences import at_place, place, ratio_words
from workbench.telling.spent import KINDS, NUMBERS, PREDICTED, spent_of, trace_file
from workbench.telling.text import listed, markdown
from workbench.telling.verdict import telling_systems
from workbench.telling.view import identities
from workbench.telling.words import provenance, setting
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.record import Record

UNITS = {"time_s": "s", "flops": "FLOP", "bytes": "B", "calls": "1"}
HEADS = {"time_s": "time", "flops": "FLOPs", "bytes": "bytes moved", "calls": "calls"}


def render() -> None:
    """Draw the page."""
    store = data()
    st.title(ASPECTS["time"].question)
    rows = subject(store)
    top = st.container()
    with st.container(horizontal=True, gap="medium"):
        at = choose_place(rows)
        where = place(*at)
        by = one("By", KINDS, "by")
        share = one("Bars", ("seconds", "share"), "bars") == "share"
    rows = at_place(rows, *at)
    rows = rows[rows["time_s"].notna()]
    systems = several_systems(telling_systems(rows) if len(rows) else [])
    rows = rows[rows["series"].isin(systems)]
    if rows.empty:
        st.info("No cell here has a time. **Runs** lists each with its reason.")
        return
    rows = rows[rows["num_visual"] == _size(rows)]
    records = store.details.some(identities(rows))
    by_system = _newest(rows, records)
    tables = [spent_of(record).assign(system=name) for name, record in by_system.items()]
    table = pd.concat(tables, ignore_index=True)
    table = table[table["by"] == by]
    if table["time_s"].isna().all():
        with top:
            answer([_whole(rows, where)])
        short = short_names(in_order(rows))
        colors = {short[name]: store.looks[name].color for name in short}
        show(spent(_undivided(rows, short), theme(), colors=colors), "time", rows)
        st.caption(_caption(rows, where, ""))
        st.info(
            f"No record here splits its seconds by {by}: they were measured without a trace."
            " `workbench measure … --trace DIR` splits those of a cell that runs, and every"
            " prediction for a card does: `workbench validate STORE --keep` adds them."
        )
        return
    with top:
        answer(
            [
                most_of(own.assign(num_visual=int(rows["num_visual"].iloc[0])))
                for _, own in table.groupby("system", sort=False)
            ],
            where,
        )
    short = short_names(list(by_system))
    renamed = table.assign(system=table["system"].map(short))
    show(spent(renamed, theme(), share), "time", table)
    st.caption(_caption(rows, where, _how(table)))
    _tables(table)
    _traces(store, by_system)


MOST = 4
"""Systems of a sentence beside the first."""
WHOLE = "the whole iteration, not split"


def _whole(rows: pd.DataFrame, where: str) -> str:
    """The seconds of an iteration, where nothing splits them."""
    short = short_names(list(rows["series"]))
    fastest = rows.sort_values("time_s").drop_duplicates("series").to_dict("records")
    first, *others = fastest
    at = f"|V| = {first['num_visual']:,}"
    words = (
        f"An iteration at {at} takes {quantity(first['time_s'], 's')} with {_name(first, short)}"
    )
    if others:
        words = (
            f"{_name(first, short)} is the fastest at {at}, {quantity(first['time_s'], 's')} an"
            f" iteration; {listed([_slower(row, first, short) for row in others[:MOST]])}"
        )
    marked = together(marks(row) for row in fastest)
    whole = f"{first['model']} · {first['scope']} · {first['pass']}, {where}"
    return f"{words} ({whole}{f', {marked}' if marked else ''})."


def _name(row: Mapping[Any, Any], short: Mapping[str, str]) -> str:
    return short[str(row["series"])]


def _slower(row: Mapping[Any, Any], first: Mapping[Any, Any], short: Mapping[str, str]) -> str:
    """'S-Attn · cudnn takes 1.22 s (1.21×)'."""
    ratio = ratio_words(row["time_s"] / first["time_s"])
    return f"{_name(row, short)} takes {quantity(row['time_s'], 's')} ({ratio}×)"


def _undivided(rows: pd.DataFrame, short: Mapping[str, str]) -> pd.DataFrame:
    """The seconds of each system as one part, the quickest first."""
    newest = rows.drop_duplicates("series", keep="last").sort_values("time_s")
    return pd.DataFrame(
        {"system": newest["series"].map(short), "name": WHOLE, "time_s": newest["time_s"]}
    )


def _size(rows: pd.DataFrame) -> int:
    """The |V| to look at: at first the largest that most systems have."""
    counts = rows.groupby("num_visual")["series"].nunique()
    sizes = [int(v) for v in counts.index]
    first = int(counts[counts == counts.max()].index.max())
    return int(
        st.select_slider(
            "|V|",
            sizes,
            value=first,
            key="at",
            bind="query-params",
            format_func=lambda v: f"{v:,}",
        )
    )


def _newest(rows: pd.DataFrame, records: Mapping[RecordId, Record]) -> dict[str, Record]:
    """The record of each system, in the order of the legend."""
    newest = {
        name: records[identity]
        for name, identity in zip(rows["series"], identities(rows), strict=True)
        if identity in records
    }
    return {name: newest[name] for name in in_order(rows) if name in newest}


def _how(table: pd.DataFrame) -> str:
    guessed = sorted(set(table.loc[table["how"] == PREDICTED, "system"]))
    how = TRACED
    if len(guessed) == table["system"].nunique():
        how = GUESSED
    elif guessed:
        how += f" Predicted, not traced: {listed(guessed)}."
    return how


def _caption(rows: pd.DataFrame, where: str, how: str) -> str:
    """What was run, its marks, and how its seconds were split."""
    at = f"|V| = {rows['num_visual'].iloc[0]:,}"
    parts = [f"{setting(rows)}, {where}, {at}.", *provenance(rows, bars=False), how]
    return markdown(" ".join(filter(None, parts)))


def _tables(table: pd.DataFrame) -> None:
    for system, own in table.groupby("system", sort=False):
        with st.expander(f"{markdown(system)}: {quantity(own['time_s'].sum(), 's')}"):
            draw_table(
                ["name", *(HEADS[name] for name in NUMBERS)],
                [
                    [str(row["name"]), *(quantity(row[n], UNITS[n]) for n in NUMBERS)]
                    for row in own.to_dict("records")
                ],
            )


def _traces(store: Data, by_system: Mapping[str, Record]) -> None:
    """The trace files that lie beside the store, to open elsewhere."""
    traces = {name: trace_file(record) for name, record in by_system.items()}
    files: dict[str, Path] = {}
    lacking = []
    for system, file in traces.items():
        if file is not None:
            try:
                files[system] = sibling_store(store.path, file)
            except RequestError as error:
                lacking.append(str(error))
    if lacking:
        more = f"; and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        st.caption(markdown(lacking[0] + more))
    with st.container(horizontal=True):
        for system, path in files.items():
            st.download_button(
                f"Trace of {markdown(system)}",
                path.read_bytes,
                path.name,
                "application/json",
                key=f"trace {system}",
                on_click="ignore",
                icon=":material/download:",
            )
    if files:
        st.caption(
            "Open a trace at ui.perfetto.dev (**Open trace file**; it stays in the browser), in"
            " Chrome at chrome://tracing, or with `tensorboard --logdir FOLDER` and"
            " torch-tb-profiler."
        )
