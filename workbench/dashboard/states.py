"""What a page says where there is nothing to draw: no store, an empty, a broken, a lost one."""

import shlex
from pathlib import Path

import streamlit as st

from workbench.dashboard.stores import inside
from workbench.telling.text import markdown
from workbench.vocabulary.errors import RequestError

FILL = "workbench sweep probes/default.py"


def _stop(title: str, text: str, kind: str = "info") -> None:
    st.title(title)
    {"info": st.info, "error": st.error}[kind](text)
    st.stop()


def nothing_here(root: Path) -> None:
    """No store in the folder: how one is made. The page ends."""
    _stop(
        "No store yet",
        f"There is no `.db` file in **{markdown(root.name or '/')}** or the folders below it. "
        "A sweep makes one; on two CPU cores the default takes about four minutes:\n\n"
        f"```\n{FILL}\n```\n\nThis page then needs one reload.",
    )


def not_found(root: Path, wanted: str, names: list[str]) -> None:
    """The link names a store that is not here: those that are. The page ends."""
    try:
        inside(root, wanted)
        reason = "There is no such store here."
    except RequestError:
        reason = (
            "A link can only name a store inside the folder in which the dashboard was started."
        )
    links = "\n".join(f"- {markdown(name)}" for name in names[:20]) or "- none"
    st.title("This link leads nowhere")
    st.error(f"**{markdown(wanted[:120])}**: {reason}")
    st.markdown(f"Stores here:\n\n{links}")
    if st.button("Open the newest store", type="primary", disabled=not names):
        st.query_params.clear()
        st.rerun()
    st.stop()


def broken(name: str, error: Exception) -> None:
    """The store cannot be read, and why. The page ends."""
    _stop(
        "This store cannot be read",
        f"{markdown(str(error))}\n\nPick another store on the left. If **{markdown(name)}** was "
        "copied while a sweep wrote to it, copy it again once the sweep is over.",
        "error",
    )


def empty(name: str) -> None:
    """The store holds nothing yet: how it is filled. The page ends."""
    command = " ".join(f"{FILL} --store {shlex.quote(name)}".split())
    _stop(
        "No records yet",
        f"**{markdown(name)}** is a store, and nothing has been added to it. A sweep fills it, "
        f"and this page follows while it runs:\n\n```\n{command}\n```",
    )
