"""Whether the reader's page is narrow: figures of several panels then stand below one another."""

import streamlit as st

NARROW = 640
"""Pixels of a page's own width under which two panels side by side are squeezed."""
COMPONENT, KEPT = "page width", "narrow page"
"""What asks the browser, and the session's answer, which outlives a change of page."""

# Streamlit does not send the width, so the page says when it becomes narrow or wide.
_TELL = """
export default function ({data, setStateValue}) {
  const page = document.querySelector("[data-testid=stMainBlockContainer]");
  let last = data.narrow;
  const tell = () => {
    const narrow = page.clientWidth < data.limit;
    if (narrow !== last) { last = narrow; setStateValue("narrow", narrow); }
  };
  const observer = new ResizeObserver(tell);
  observer.observe(page);
  tell();
  return () => observer.disconnect();
}
"""
_measure = st.components.v2.component("page_width", js=_TELL)


def measure_width() -> None:
    """Ask the browser, which draws the page once more where the answer is another than before."""
    before = is_narrow()
    with st.container(key="page-width"):
        _measure(
            key=COMPONENT,
            data={"narrow": before, "limit": NARROW},
            default={"narrow": before},
            on_narrow_change=_keep,
        )


def _keep() -> None:
    # Before the page is drawn: it would ask again if it sent the answer of before.
    st.session_state[KEPT] = bool(st.session_state[COMPONENT]["narrow"])


def is_narrow() -> bool:
    """What the browser said last; before that, whether its name is a phone's."""
    phone = "Mobi" in (st.context.headers.get("User-Agent") or "")
    return bool(st.session_state.get(KEPT, phone))
