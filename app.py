"""The dashboard's entry, navigation only: ``streamlit run app.py [-- STORE.db]``.

Streamlit imports this file for ``app``, the server, and runs it as a script for every reader.
"""

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware

from workbench import dashboard
from workbench.dashboard import shell
from workbench.dashboard.guard import LocalOnly
from workbench.dashboard.pages import (
    compare,
    memory,
    overview,
    planner,
    roofline,
    runs,
    scaling,
    spent,
    thresholds,
    validation,
)

# A named icon would be fetched from outside; a file of our own is not.
ICON = Path(dashboard.__file__).with_name("icon.svg")


def draw() -> None:
    """The page that the reader is on, below the navigation."""
    st.set_page_config(page_title="Visual-token workbench", page_icon=ICON, layout="wide")
    pages = [
        st.Page(overview.render, title="Overview", icon=":material/dashboard:", default=True),
        st.Page(scaling.render, title="Scaling", icon=":material/show_chart:", url_path="scaling"),
        st.Page(
            thresholds.render,
            title="Thresholds",
            icon=":material/vertical_align_top:",
            url_path="thresholds",
        ),
        st.Page(memory.render, title="Memory", icon=":material/memory:", url_path="memory"),
        st.Page(roofline.render, title="Roofline", icon=":material/roofing:", url_path="roofline"),
        st.Page(
            validation.render,
            title="Validation",
            icon=":material/fact_check:",
            url_path="validation",
        ),
        st.Page(spent.render, title="Time", icon=":material/timer:", url_path="time"),
        st.Page(planner.render, title="Planner", icon=":material/calculate:", url_path="planner"),
        st.Page(
            compare.render, title="Compare", icon=":material/compare_arrows:", url_path="compare"
        ),
        st.Page(runs.render, title="Runs", icon=":material/table_rows:", url_path="runs"),
    ]
    page = st.navigation(pages)
    with shell.telling_faults():
        page.run()


if __name__ == "__main__":
    draw()
else:
    app = st.App(__file__, middleware=[Middleware(LocalOnly)])
