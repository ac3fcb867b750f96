"""Runs: every record in a table to filter, with its reasons and the command that repeats it."""

import numpy as np
import pandas as pd
import streamlit as st

from workbench.analysis import kinds, legend, letters, marks
from workbench.dashboard.controls import several
from workbench.dashboard.notes import editors, with_notes
from workbench.dashboard.reading import Data
from workbench.dashboard.save import csv_of
from workbench.dashboard.shell import answer, data
from workbench.dashboard.tables import draw_table
from workbench.dashboard.uploads import upload
from workbench.dashboard.width import is_narrow, is_wide
from workbench.figures import quantity
from workbench.report.command import repeat
from workbench.telling.sentences import place, places
from workbench.telling.text import listed, markdown
from workbench.telling.view import identities
from workbench.telling.words import OUTCOMES, endings
from workbench.vocabulary.metrics import METRICS
from workbench.vocabulary.units import plural

FIGURES = {
    "series": "system",
    "num_visual": "|V|",
    "ended": "ended",
    "time_s": "s/it",
}
"""The columns that a phone has room for."""
SHORT = FIGURES | {"peak_bytes": "peak, GiB", "of": "of", "letters": "marks"}
"""Those of a page between a phone's and a wide one; a caption says what the letters mean."""
WIDE = FIGURES | {
    "peak_bytes": "peak, GiB",
    "flops": "TFLOP",
    "num_samples": "samples",
    "marks": "marks",
    "of": "of",
    "where": "source and device",
}
WRITTEN = {"tags": "tags", "note": "note"}
"""What people wrote: columns where somebody did."""
SCALE = {"flops": 1e12, "peak_bytes": 2.0**30}
TEXTS = (
    "flags",
    "error",
    "model",
    "series",
    "device",
    "status",
    "scope",
    "pass",
    "run",
    "note",
    "tags",
)
"""The columns in which a word is looked for."""
MOST = 5_000
"""Rows that are sent to the browser; the downloads hold all."""
NAME, TALL = 128, 64
"""Pixels of a system's name on a page that is not wide, and of a row for three lines of it."""
PIXELS = {"|V|": 70, "ended": 95, "s/it": 70, "peak, GiB": 72, "of": 105, "marks": 56}
"""Of the other columns of SHORT."""


def render() -> None:
    """Draw the page."""
    store = data()
    st.title("Which records are there?")
    answer([_top(store.frame)])
    upload()
    rows = with_notes(store.frame, store.notes)
    with st.container(horizontal=True, gap="medium"):
        there = rows["source"].unique()
        endings = {"ok": listed([FINE[source] for source in FINE if source in there], "or")}
        words_of = {**OUTCOMES, **endings}
        statuses = several(
            "Ended", sorted(rows["status"].unique()), "status", words_of.__getitem__
        )
        sources = several("Source", sorted(rows["source"].unique()), "source_of_runs")
        flag_names = sorted(
            {flag.partition(":")[0] for flags in rows["flags"].unique() for flag in flags}
        )
        flags = st.multiselect(
            "Flags", flag_names, key="flags", bind="query-params", placeholder="any"
        )
    words = st.text_input(
        "Containing",
        key="containing",
        bind="query-params",
        placeholder="a model, a system, a device, a flag, a tag …",
    )
    for column, picked in (("status", statuses), ("source", sources)):
        rows = rows if len(picked) == rows[column].nunique() else rows[rows[column].isin(picked)]
    rows = _containing(rows, str(words or ""))
    if flags:
        has = {
            own
            for own in rows["flags"].unique()
            if not {flag.partition(":")[0] for flag in own}.isdisjoint(flags)
        }
        rows = rows[rows["flags"].isin(has)]
    st.caption(
        f"{plural(len(rows), 'record')} of {plural(store.frame['run'].nunique(), 'run')}"
        + (f"; the first {MOST:,} are shown" if len(rows) > MOST else "")
    )
    if rows.empty:
        st.info("No record matches. Clear the filter to see all.")
        return
    page_rows = store.whole(rows.head(MOST))
    event = st.dataframe(
        _table(page_rows),
        hide_index=True,
        width="stretch",
        height=420,
        row_height=None if is_wide() else TALL,
        key="records",
        on_select="rerun",
        selection_mode="single-row",
        column_config=_columns(),
    )
    if meaning := _meaning(page_rows):
        st.caption(markdown(meaning))
    _downloads(store, rows)
    selection = event.selection.rows
    if selection:
        _one(store, page_rows.iloc[selection])
        editors(store, page_rows.iloc[selection[0]])
    else:
        st.caption("Tick a record for its flags, its metrics and the command that repeats it.")


def _top(frame: pd.DataFrame) -> str:
    """How many records, and how they ended."""
    runs = plural(frame["run"].nunique(), "run")
    return f"{plural(len(frame), 'record')} of {runs}: {endings(frame)}."


def _containing(rows: pd.DataFrame, words: str) -> pd.DataFrame:
    """The rows in whose text every word occurs."""
    if not words.strip():
        return rows
    # Many rows say the same in all of these columns.
    codes, distinct, _ = kinds(rows, TEXTS)
    keep = []
    for flags, *texts in distinct.itertuples(index=False):
        haystack = " ".join([*flags, *(str(text) for text in texts if not pd.isna(text))]).lower()
        keep.append(all(word in haystack for word in words.lower().split()))
    return rows[np.array(keep)[codes]]


TOLD = ("source", "device", "status", "model", "scope", "pass", "flags")
"""What a row's words are of: few combinations in thousands of rows."""
FINE = {"measured": "ran", "predicted": "fits"}
"""A record's source, and the word for a good end."""


def _ended(source: str, status: str) -> str:
    """'ran', 'fits', 'out of memory', 'out of memory, predicted'."""
    if status == "ok":
        return FINE[source]
    return OUTCOMES[status] + (", predicted" if source == "predicted" else "")


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.assign(timed=rows["time_s"].notna())
    written = {name: title for name, title in WRITTEN.items() if (rows[name] != "").any()}
    columns = FIGURES if is_narrow() else WIDE | written if is_wide() else SHORT
    of = ("model", "scope", "pass")[rows["model"].nunique() == 1 :]
    codes, distinct, _ = kinds(rows, (*TOLD, "num_samples", "timed"))
    records = distinct.to_dict("records")
    marked = [marks(row, timed=row["timed"]) for row in records]
    table = rows.assign(
        ended=np.array([_ended(row["source"], row["status"]) for row in records])[codes],
        of=np.array([" · ".join(str(row[name]) for name in of) for row in records])[codes],
        where=np.array([place(row["source"], row["device"]) for row in records])[codes],
        marks=np.array([", ".join(words) for words in marked])[codes],
        letters=np.array([letters(words).strip(" ()") for words in marked])[codes],
    )[list(columns)]
    for name in columns.keys() & SCALE.keys():
        table[name] = pd.to_numeric(table[name]) / SCALE[name]
    return table.rename(columns=columns)


def _meaning(rows: pd.DataFrame) -> str:
    """What a page that is not wide leaves out of its table: the place, and what letters mean."""
    if is_wide():
        return ""
    every = places(rows)
    where = f"Every record is {place(*every[0])}. " if len(every) == 1 else ""
    if is_narrow():
        return where
    distinct = kinds(rows, ("flags", "num_samples")).distinct
    return where + legend((marks(row) for row in distinct.to_dict("records")), "Marks")


def _columns() -> dict[str, object]:
    formats = {
        "|V|": "localized",
        "TFLOP": "%.4g",
        "peak, GiB": "%.4g",
        "s/it": "%.4g",
        "samples": "%d",
    }
    pixels = {} if is_narrow() or is_wide() else PIXELS
    texts = [name for name in pixels if name not in formats]
    return {
        **({} if is_wide() else {"system": st.column_config.TextColumn(width=NAME)}),
        **{
            name: st.column_config.NumberColumn(format=words, width=pixels.get(name))
            for name, words in formats.items()
        },
        **{name: st.column_config.TextColumn(width=pixels[name]) for name in texts},
    }


def _downloads(store: Data, rows: pd.DataFrame) -> None:
    with st.container(horizontal=True):
        st.download_button(
            "CSV",
            lambda: csv_of(store.whole(rows)),
            "records.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
        )
        st.download_button(
            "Parquet",
            lambda: _parquet(store.whole(rows)),
            "records.parquet",
            "application/vnd.apache.parquet",
            icon=":material/download:",
            on_click="ignore",
        )


def _parquet(rows: pd.DataFrame) -> bytes:
    flat = rows.assign(flags=rows["flags"].map("; ".join))
    # Columns of mixed Python objects have no Parquet type; as text they keep what they say.
    mixed = dict.fromkeys(flat.select_dtypes("object").columns, "str")
    return bytes(flat.astype(mixed).to_parquet(index=False))


def repeats(store: Data, rows: pd.DataFrame) -> str:
    """The command that runs the cell of the one row again."""
    # The row itself leaves out what makes no difference, which may be what makes the cell valid.
    (record,) = store.details.some(identities(rows)).values()
    return repeat(record)


def _one(store: Data, rows: pd.DataFrame) -> None:
    """Everything about the one row."""
    row = rows.iloc[0]
    st.subheader(f"{markdown(row['series'])} at \\|V\\| = {row['num_visual']:,}")
    st.caption(markdown(f"Run {row['run']}, begun {row['started_at']}."))
    left, right = st.columns([3, 2])
    with left:
        st.code(repeats(store, rows), language="bash", wrap_lines=True)
        if isinstance(row["error"], str):
            st.warning(markdown(row["error"]))
        for flag in row["flags"]:
            st.markdown(f"- {markdown(flag)}")
    with right:
        lines = [
            (metric.label, quantity(row[name], metric.unit, 4), metric.convention)
            for name, metric in METRICS.items()
            if name in row and not pd.isna(row[name])
        ]
        draw_table(("metric", "value", "convention"), lines)
