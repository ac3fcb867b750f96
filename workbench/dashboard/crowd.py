"""Many systems on one page: a few as lines, all of them as bars at one |V|."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from workbench.analysis import host_bound, marks, short_names, together
from workbench.dashboard.save import show, theme
from workbench.dashboard.width import is_narrow
from workbench.figures import quantity
from workbench.figures.systems import PANELS, systems_figure
from workbench.telling.sentences import place, ratio_words
from workbench.telling.text import markdown
from workbench.telling.verdict import telling_systems
from workbench.vocabulary.systems import entry

MOST_LINES = 9
"""Lines that a reader can tell apart."""
MOST_BARS = 60
LEADING = 3
"""The first of ``telling_systems``: both kernels of S-Attn, and D-Attn."""
BASELINE = "s_attn"
GROUPS = ("exact", "approximate", "reducers")


def group_of(attention: str, reducer: object) -> str:
    """One of GROUPS, reducers where one stands before the system; 'unknown' without an entry."""
    if isinstance(reducer, str):
        return "reducers"
    system = entry("attention", attention)
    return "unknown" if system is None else system.group


def quickest_first(rows: pd.DataFrame) -> list[str]:
    """Every series of one place: those that a comparison must not lack, then each other system
    with its quickest kernel, the quickest system first, then the kernels that are left.
    """
    names = telling_systems(rows)
    seconds = _at(rows, usual_size(rows)).set_index("series")["time_s"].to_dict()
    by_time = sorted(names, key=lambda name: (pd.isna(seconds.get(name)), seconds.get(name), name))
    first = names[:LEADING]
    one_each = {_without_kernel(name): name for name in [*by_time[::-1], *first[::-1]]}
    lean = [name for name in by_time if name in one_each.values() and name not in first]
    return [*first, *lean, *(name for name in by_time if name not in {*first, *lean})]


def _one_each(names: Sequence[str]) -> list[str]:
    """Of names as ``quickest_first`` has them, one of each system, and both kernels of S-Attn."""
    firsts = {_without_kernel(name): name for name in reversed(names)}
    return list(dict.fromkeys([*names[:LEADING], *firsts.values()]))


def usual_size(rows: pd.DataFrame) -> int:
    """The largest |V| that most systems have."""
    counts = rows.groupby("num_visual")["series"].nunique()
    return int(counts[counts == counts.max()].index.max())


def _without_kernel(series: str) -> tuple[str, ...]:
    attention, _, *options = series.split(" · ")
    return (attention, *options)


def _at(rows: pd.DataFrame, size: int) -> pd.DataFrame:
    """The newest cell of each series at that |V|."""
    return rows[rows["num_visual"] == size].drop_duplicates("series", keep="last")


def draw_bars(rows: pd.DataFrame, names: Sequence[str], source: str, device: str) -> None:
    """Seconds and memory of every one of ``names`` at the |V| that the reader picks, the quickest
    on top, with a sentence that says which that is and by how much.
    """
    sizes = sorted(int(size) for size in rows["num_visual"].unique())
    size = int(
        st.select_slider(
            "All systems at |V|",
            sizes,
            value=usual_size(rows),
            key="bars_at",
            bind="query-params",
            format_func=lambda each: f"{each:,}",
        )
    )
    here = _at(rows[rows["series"].isin(_one_each(names))], size)
    here = here[here["peak_bytes"].notna()].sort_values("time_s").head(MOST_BARS)
    if here.empty:
        st.info("No system has a figure at this |V|.")
        return
    cells = here.assign(host_bound=host_bound(here)).to_dict("records")
    mark_words = together(marks(cell) for cell in cells)
    sentence = (
        f"{_first(here, size)} ({place(source, device)}{f', {mark_words}' if mark_words else ''})"
    )
    st.markdown(f"**{markdown(sentence)}**")
    systems = documents(here)
    # Below one another where two panels would leave the names no room.
    for panels in [[panel] for panel in PANELS] if is_narrow() else [PANELS]:
        name = f"systems-{panels[0][0].replace('_', '-')}"
        show(systems_figure(systems, "", theme(), panels), name, here)


def documents(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows, one a series, as documents of ``compare-systems``."""
    short = short_names(list(rows["series"]))
    bars = []
    for row in rows.to_dict("records"):
        system = entry("attention", row["attention"])
        figures = {name: row[name] for name in ("time_s", "peak_bytes")}
        bars.append(
            {
                "label": short[row["series"]],
                "group": group_of(row["attention"], row["reduce"]),
                "gives_up": "" if system is None else system.gives_up,
                "status": row["status"],
                "metrics": {n: None if pd.isna(v) else v for n, v in figures.items()},
            }
        )
    return bars


def _first(rows: pd.DataFrame, size: int) -> str:
    """'HiMix · sdpa is the quickest of 21 at |V| = 73,629: 2 s, 42× as fast as S-Attn · sdpa'."""
    short = short_names(list(rows["series"]))
    timed = rows[rows["time_s"].notna() & (rows["status"] == "ok")]
    if timed.empty:
        return f"None of these {len(rows)} fits at |V| = {size:,}"
    best = timed.iloc[0]
    plain = timed[(timed["attention"] == BASELINE) & timed["reduce"].isna()]
    words = (
        f"{short[best['series']]} is the quickest of {len(rows)} at |V| = {size:,}:"
        f" {quantity(best['time_s'], 's')}"
    )
    if plain.empty or best["series"] in set(plain["series"]):
        return words
    base = plain.iloc[0]
    ratio = ratio_words(float(base["time_s"]) / float(best["time_s"]))
    return f"{words}, {ratio}× as fast as {short[base['series']]}"
