"""Tables of text on a page: a short one stands there whole, its lines broken, nothing cut."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from workbench.telling.text import markdown

MOST_ROWS = 60
"""Rows that a page carries as they are; longer tables scroll in a window of their own."""
SHORT = 9
"""Characters of a cell that is a number and its unit: '1.01 s', '43.1 GiB'."""


def draw_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of plain strings, none of which becomes markup."""
    if len(rows) > MOST_ROWS:
        frame = pd.DataFrame(list(rows), columns=list(columns))
        st.dataframe(frame, hide_index=True, width="stretch")
        return
    cells = [[_unbroken(markdown(cell)) for cell in row] for row in rows]
    frame = pd.DataFrame(cells, columns=[markdown(name) for name in columns])
    st.table(frame, border="horizontal", hide_index=True)


def _unbroken(cell: str) -> str:
    """A number and its unit stay in one line."""
    return cell.replace(" ", "\u00a0") if len(cell) <= SHORT else cell
