"""The dashboard's entry, navigation only: ``streamlit run app.py [-- STORE.db]``.

Streamlit imports this file for ``app``, the server, and runs it as a script for every reader.
"""

import gc
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.middleware import Middleware

from workbench import aspects, dashboard
from workbench.dashboard import plain, shell
from workbench.dashboard.guard import LocalOnly
from workbench.dashboard.pages import compare, overview, planner, runs
from workbench.dashboard.width import measure_width

# A named icon would be fetched from outside; a file of our own is not.
ICON = Path(dashboard.__file__).with_name("icon.svg")


def of_aspect(name: str, aspect: aspects.Aspect) -> Any:
    """The page of an aspect: its own, or else what the report says of it."""
    own = f"workbench.dashboard.pages.{name}"
    render = import_module(own).render if find_spec(own) else partial(plain.draw, name, aspect)
    icon = f":material/{aspect.icon}:"
    return st.Page(render, title=aspect.page, icon=icon, url_path=name)


def draw() -> None:
    """The page that the reader is on, below the navigation."""
    st.set_page_config(page_title="Visual-token workbench", page_icon=ICON, layout="wide")
    pages = [
        st.Page(overview.render, title="Overview", icon=":material/dashboard:", default=True),
        *(of_aspect(name, aspect) for name, aspect in aspects.in_order()),
        st.Page(planner.render, title="Planner", icon=":material/calculate:", url_path="planner"),
        st.Page(
            compare.render, title="Compare", icon=":material/compare_arrows:", url_path="compare"
        ),
        st.Page(runs.render, title="Runs", icon=":material/table_rows:", url_path="runs"),
    ]
    # A first page's own path is the root: this one is where a bookmark of /overview leads.
    pages.append(
        st.Page(overview.render, title="Overview", url_path="overview", visibility="hidden")
    )
    page = st.navigation(pages)
    measure_width()
    with shell.telling_faults():
        page.run()


if __name__ == "__main__":
    draw()
else:
    # Modules live as long as the server: a collection of rubbish need not look through them again,
    # which would hold a page up for a tenth of a second.
    gc.freeze()
    app = st.App(__file__, middleware=[Middleware(LocalOnly)])
