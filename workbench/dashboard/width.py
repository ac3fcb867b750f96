"""How wide the reader's page is: on a narrow one panels stand below one another."""

import streamlit as st

NARROW = 640
"""Pixels of a page's own width under which two panels side by side are squeezed."""
WIDE = 900
"""Pixels from which several panels leave room for names beside them."""
LIMITS = (NARROW, WIDE)
UNKNOWN = -1
"""In place of a number of LIMITS: the browser answers whatever its width is."""
COMPONENT, KEPT = "page width", "kind of page width"
"""What asks the browser, and the session's answer, which outlives a change of page."""

# Streamlit does not send the width, so the page says how many of the limits it reaches, and when
# that changes.
_TELL = """
export default function ({data, setStateValue}) {
  const page = document.querySelector("[data-testid=stMainBlockContainer]");
  let last = data.reached;
  const tell = () => {
    const reached = data.limits.filter((limit) => page.clientWidth >= limit).length;
    if (reached !== last) { last = reached; setStateValue("reached", reached); }
  };
  const observer = new ResizeObserver(tell);
  observer.observe(page);
  tell();
  return () => observer.disconnect();
}
"""
_measure = st.components.v2.component("page_width", js=_TELL)


def measure_width() -> None:
    """Ask the browser, which draws the page once more where the answer is another than before.

    A browser's first page waits for its answer: to draw it for another width would be for nothing.
    """
    is_awaited = KEPT not in st.session_state and "Mozilla" in _reader()
    before = UNKNOWN if is_awaited else _reached()
    with st.container(key="page-width"):
        _measure(
            key=COMPONENT,
            data={"reached": before, "limits": LIMITS},
            default={"reached": before},
            on_reached_change=_keep,
        )
    if is_awaited:
        st.stop()


def _reader() -> str:
    """What the reader's program calls itself; each browser begins with the same word."""
    return st.context.headers.get("User-Agent") or ""


def _keep() -> None:
    # Before the page is drawn: it would ask again if it sent the answer of before.
    st.session_state[KEPT] = int(st.session_state[COMPONENT]["reached"])


def _reached() -> int:
    """How many of LIMITS, as the browser said last; all for a reader that is no browser."""
    return int(st.session_state.get(KEPT, len(LIMITS)))


def is_narrow() -> bool:
    """Whether panels stand below one another."""
    return _reached() == 0


def is_wide() -> bool:
    """Whether several panels leave room for names beside them."""
    return _reached() == len(LIMITS)
