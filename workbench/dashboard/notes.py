"""Notes and tags on the runs page: read beside the records, written into the store."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import streamlit as st

from workbench.dashboard.reading import Data
from workbench.dashboard.uploads import uploaded
from workbench.store import Store, StoreError
from workbench.store.notes import MAX_TEXT, Note, NoteOf
from workbench.telling.text import markdown
from workbench.telling.view import identities
from workbench.vocabulary.errors import RequestError


def with_notes(rows: pd.DataFrame, notes: Mapping[NoteOf, Note]) -> pd.DataFrame:
    """The rows with ``note`` and ``tags``: the record's own, and its run's tags."""
    if not notes:
        return rows.assign(note="", tags="")
    own = [notes.get(identity, Note()) for identity in identities(rows)]
    runs = [notes.get((run, "", "", ""), Note()) for run in rows["run"]]
    return rows.assign(
        note=[note.text for note in own],
        tags=[
            ", ".join(dict.fromkeys((*a.tags, *b.tags))) for a, b in zip(own, runs, strict=True)
        ],
    )


def editors(store: Data, row: pd.Series) -> None:
    """Two small forms: one for the record, one for its run."""
    if store.path in uploaded().values():
        st.caption("Notes are written into a store, and an upload is only read.")
        return
    whole: NoteOf = (str(row["run"]), "", "", "")
    own: NoteOf = (str(row["run"]), str(row["key"]), str(row["source"]), str(row["device"]))
    left, right = st.columns(2)
    with left:
        _editor(store, own, "Note on this record")
    with right:
        _editor(store, whole, "Note on its run")


def _editor(store: Data, of: NoteOf, label: str) -> None:
    note = store.notes.get(of, Note())
    # A key of its own for every record: what was typed for one must not turn up at another.
    name = " ".join((label, *of))
    with st.form(f"form {name}", border=False):
        text = st.text_area(label, note.text, max_chars=MAX_TEXT, height=90, key=f"text {name}")
        tags = st.text_input(
            "Tags", ", ".join(note.tags), key=f"tags {name}", placeholder="baseline, check again"
        )
        if st.form_submit_button("Save"):
            _write(store.path, of, text, tags)


def _write(path: Path, of: NoteOf, text: str, tags: str) -> None:
    try:
        with Store.open(path, "w") as store:
            store.write_note(of, text, tags.split(","))
    except (RequestError, StoreError) as error:
        st.error(markdown(error))
        return
    st.rerun()
