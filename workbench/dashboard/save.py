"""A figure on a page, and its three downloads: PNG and SVG from the browser, CSV of its rows."""

import csv
import json
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from workbench.dashboard.width import is_narrow, is_wide
from workbench.figures import THEMES, Theme
from workbench.figures.narrow import for_phone, for_tablet
from workbench.store.inert import inert

# plotly's own camera draws the picture; on paper it needs the ground that the page lends it.
_BUTTONS = """
<style>
.save-figure button {{font: inherit; font-size: 0.8rem; color: inherit; background: none;
  border: 1px solid rgba(128,128,128,.4); border-radius: .4rem; padding: .25rem .6rem;
  cursor: pointer; margin-right: .4rem}}
.save-figure button:hover {{border-color: currentColor}}
</style>
<div class="save-figure">
<button data-figure={name} data-format="png">PNG</button
><button data-figure={name} data-format="svg">SVG</button>
</div>
<script>
for (const button of document.querySelectorAll(".save-figure button")) {{
  button.onclick = () => {{
    const {{figure, format}} = button.dataset;
    const plot = document.querySelector(`.st-key-figure-${{figure}} .js-plotly-plot`);
    const ground = plot.layout.paper_bgcolor;
    const scale = format === "png" ? 2 : 1;
    plot._context.toImageButtonOptions = {{format, filename: figure, scale}};
    plot.layout.paper_bgcolor = {paper};
    plot.querySelector('.modebar-btn[data-title^="Download"]').click();
    plot.layout.paper_bgcolor = ground;
  }};
}}
</script>
"""


def theme() -> Theme:
    """The neutral colours of the theme that the reader has on."""
    return THEMES[st.context.theme.type or "light"]


def show(figure: go.Figure, name: str, rows: pd.DataFrame, selects: bool = False) -> Any:
    """Draw a figure with its downloads under ``name``, a word; ``rows`` are what it was drawn of.

    With ``selects`` the points that the reader clicked come back.
    """
    # What was measured leaves the page only as a file.
    closed = {"plotlyServerURL": "", "modeBarButtonsToRemove": ["sendChartToCloud"]}
    picture = {"format": "png", "filename": name}
    config = {"displaylogo": False, "toImageButtonOptions": picture, **closed}
    more: dict[str, Any] = {"on_select": "rerun", "selection_mode": "points"} if selects else {}
    if is_narrow():
        figure = for_phone(figure)
    elif not is_wide():
        figure = for_tablet(figure)
    chart = st.plotly_chart(
        figure, theme=None, width="stretch", key=f"figure-{name}", config=config, **more
    )
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        words = {"name": json.dumps(name), "paper": json.dumps(theme().paper)}
        st.html(_BUTTONS.format(**words), width="content", unsafe_allow_javascript=True)
        st.download_button(
            "CSV",
            lambda: csv_of(rows),
            f"{name}.csv",
            "text/csv",
            key=f"csv-{name}",
            on_click="ignore",
            type="tertiary",
            icon=":material/download:",
        )
    return chart.selection.points if selects else None


def csv_of(rows: pd.DataFrame) -> bytes:
    """A frame as CSV whose texts no spreadsheet runs, its header's included."""
    flat = rows.assign(flags=rows["flags"].map("; ".join)) if "flags" in rows else rows
    texts = flat.select_dtypes(["object", "str"]).columns
    safe = {name: flat[name].map(inert, na_action="ignore") for name in texts}
    table = flat.assign(**safe).rename(columns=inert)
    # Quoted, because a spreadsheet may split at other characters than the comma.
    return bytes(table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC).encode())
