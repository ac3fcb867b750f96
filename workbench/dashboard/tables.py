"""Tables of text on a page: a short one stands there whole, its lines broken, nothing cut."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from workbench.telling.text import markdown

MOST_ROWS = 60
"""Rows that a page carries as they are; longer tables scroll in a window of their own."""


def draw_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of plain strings, none of which becomes markup."""
    if len(rows) > MOST_ROWS:
        frame = pd.DataFrame(list(rows), columns=list(columns))
        st.dataframe(frame, hide_index=True, width="stretch")
        return
    cells = [[markdown(cell) for cell in row] for row in rows]
    frame = pd.DataFrame(cells, columns=[markdown(name) for name in columns])
    st.table(frame, border="horizontal", hide_index=True)
