"""The page of an aspect that has none of its own: its chapter of the report, of what is picked."""

import streamlit as st

from workbench.aspects import Aspect
from workbench.dashboard.answers import verdict_of
from workbench.dashboard.controls import subject
from workbench.dashboard.save import show
from workbench.dashboard.shell import answer, data
from workbench.dashboard.tables import draw_table
from workbench.telling.material import Material, Subject
from workbench.telling.sentences import places
from workbench.telling.text import markdown


def draw(name: str, aspect: Aspect) -> None:
    """Draw the page."""
    store = data()
    st.title(markdown(aspect.question))
    rows = subject(store)
    picked = {column: rows[column].iloc[0] for column in ("model", "scope", "pass")}
    title = " · ".join(map(str, picked.values()))
    of_rows = Subject(title, name, picked, rows, store.pairs(rows))
    material = Material(
        path=store.path,
        frame=rows,
        num_cells=len(rows),
        runs=store.runs,
        details=store.details,
        looks=store.looks,
        subjects=(of_rows,),
        notes=store.notes,
    )
    block = aspect.block(material, of_rows)
    # An aspect of tables alone has the subject's own answer above them.
    answer(list(block.sentences) or [verdict_of(store, rows, *places(rows)[0]).speed()])
    if block.figure is not None:
        dark = st.context.theme.type == "dark"
        show(block.figure.dark if dark else block.figure.light, name, rows)
        st.caption(markdown(" ".join(block.figure.caption)))
    for table in block.tables:
        st.markdown(f"**{markdown(table.title)}**")
        draw_table(table.columns, table.rows)
        if table.note:
            st.caption(markdown(table.note))
