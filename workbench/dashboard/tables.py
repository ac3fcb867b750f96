"""Tables of text on a page: a short one stands there whole, its lines broken, nothing cut."""

from collections.abc import Sequence
from html import escape

import pandas as pd
import streamlit as st

MOST_ROWS = 60
"""Rows that a page carries as they are; longer tables scroll in a window of their own."""
SHORT = 9
"""Characters of a cell that is a number and its unit: '1.01 s', '43.1 GiB'."""
ROOMS = (24, 36, 48, 60)
"""Widths in rem, below one of which a table's columns have no room."""
LETTER, GAP = 0.45, 0.6
"""Rem of a letter, at the mean, and between two columns."""

# Where its columns have no room, each row becomes a block of named values.
_BLOCKS = """{0} thead {{display: none}}
{0} tr {{display: block; padding: .5rem 0}}
{0} td {{display: flex; gap: 1rem; border: 0; padding: .1rem 0}}
{0} td:first-child {{font-weight: 600}}
{0} td:empty {{display: none}}
{0} td::before {{content: attr(data-name); flex: 0 0 38%; opacity: .65}}"""


def _below(room: int) -> str:
    return f"@container (max-width: {room}rem) {{{_BLOCKS.format(f'.words .room-{room}')}}}"


STYLE = f"""
.words {{container-type: inline-size; margin-bottom: 1rem}}
.words table {{width: 100%; border-collapse: collapse; font-size: .9rem}}
.words th {{font-weight: 400; opacity: .65; text-align: left; vertical-align: bottom}}
.words th, .words td {{padding: .35rem .6rem .35rem 0; overflow-wrap: break-word}}
.words tr {{border-bottom: 1px solid rgba(128,128,128,.3)}}
.words td {{vertical-align: top}}
{"".join(_below(room) for room in ROOMS)}"""


def draw_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of plain strings, none of which becomes markup."""
    if len(rows) > MOST_ROWS:
        frame = pd.DataFrame(list(rows), columns=list(columns))
        st.dataframe(frame, hide_index=True, width="stretch")
        return
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{_cells(columns, row)}</tr>" for row in rows)
    parts = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    room = _room(columns, rows)
    st.html(f"<div class='words'><table class='room-{room}'>{parts}</table></div>")


def _room(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """The least of ROOMS in which every word stands whole, and all columns beside one another."""
    words = [
        max(len(word) for cell in column for word in _unbroken(cell).split(" "))
        for column in zip(columns, *rows, strict=True)
    ]
    needed = sum(LETTER * letters + GAP for letters in words)
    return next((room for room in ROOMS if room >= needed), ROOMS[-1])


def _cells(columns: Sequence[str], row: Sequence[str]) -> str:
    return "".join(
        f'<td data-name="{escape(name)}">{escape(_unbroken(cell))}</td>'
        for name, cell in zip(columns, row, strict=True)
    )


def _unbroken(cell: str) -> str:
    """A number and its unit stay in one line."""
    return cell.replace(" ", "\u00a0") if len(cell) <= SHORT else cell
