"""Two systems side by side, at every |V| that both ran: who wins, and by how much."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from workbench.analysis import beside_emulation, marks, short_names
from workbench.analysis.side_by_side import side_by_side
from workbench.analysis.thin import thin
from workbench.dashboard.answers import choose_place, verdict_of
from workbench.dashboard.controls import subject
from workbench.dashboard.reading import Data
from workbench.dashboard.save import show, theme
from workbench.dashboard.shell import answer, say_thinned
from workbench.dashboard.tables import draw_table
from workbench.figures import agreement, in_order, quantity
from workbench.telling.sentences import (
    amount_words,
    at_place,
    emulated,
    place,
    ratio_text,
    ratio_words,
    shared_options,
)
from workbench.telling.text import listed, markdown
from workbench.telling.verdict import telling_systems
from workbench.telling.words import provenance, setting

TOLERANCE = 0.02
"""Two figures this close are about equal."""
COSTS = {
    "peak_bytes": ("less peak memory", "more peak memory", "the same peak memory"),
    "flops": ("fewer FLOPs", "more FLOPs", "the same FLOPs"),
}


def draw(store: Data, top: Any) -> None:
    """The comparison of the two systems that the reader picks; the answer goes into ``top``."""
    rows = subject(store)
    with st.container(horizontal=True, gap="medium"):
        source, device = choose_place(rows)
        rows = at_place(rows, source, device)
        names = telling_systems(rows)
        if len(names) < 2:
            st.info("Only one system ran here, and a comparison takes two.")
            return
        first, second = _telling_pair(store, rows, (source, device), names)
        short = short_names(in_order(rows))
        system = _pick("System", names, first, "this", short)
        others = [name for name in names if name != system]
        second = second if second in others else others[0]
        baseline = _pick("Against", others, second, "that", short)
    own = rows[rows["series"].isin([system, baseline])]
    table = store.once(
        f"{system} against {baseline}",
        own,
        lambda both: side_by_side(both, system, baseline, store.samples(both)),
    )
    if table.empty:
        st.info(
            markdown(
                f"{short[system]} and {short[baseline]} have no |V| at which both ran."
                " Pick another pair above."
            )
        )
        return
    facts = own.iloc[0]
    cells = own[own["num_visual"].isin(table["num_visual"]) & (own["status"] == "ok")]
    conditions = beside_emulation(marks(row) for row in cells.to_dict("records"))
    basis = ", ".join(
        [
            f"{facts['model']} · {facts['scope']} · {facts['pass']}",
            place(source, device),
            *conditions,
        ]
    )
    with top:
        answer(
            [who_wins(table, short[system], short[baseline])],
            f"{basis}{shared_options(list(short))}{emulated(cells)}",
        )
    drawn = thin(table, ("ratio",), lines=("metric", "series"))
    title = f"{short[baseline]} over {short[system]}"
    pairs = drawn[drawn["ratio"].notna()].assign(note="", series=title)
    look = {title: store.looks[system]}
    show(agreement(pairs, look, theme(), "times less", TOLERANCE, alike=True), "compare", table)
    say_thinned(drawn, table)
    intervals = " Bars are the 95 % interval of the ratio." if table["low"].notna().any() else ""
    st.caption(
        markdown(
            f"{setting(own)}, {place(source, device)}. {title}: above 1"
            f" {short[system]} needs less, below 1 {short[baseline]} does; the grey band is"
            f" {TOLERANCE:.0%} about equal.{intervals} {' '.join(provenance(cells, bars=False))}"
        )
    )
    draw_table(_columns(short[system], short[baseline]), _rows(table))


def _pick(label: str, names: Sequence[str], first: str, key: str, short: Mapping[str, str]) -> str:
    return str(
        st.selectbox(
            label,
            names,
            index=list(names).index(first),
            key=key,
            bind="query-params",
            format_func=lambda name: short.get(name, name),
        )
    )


def _telling_pair(
    store: Data, rows: pd.DataFrame, at: tuple[str, str], names: Sequence[str]
) -> tuple[str, str]:
    """The system of the page's verdict and the fastest fused baseline at the largest |V|, else the
    eager one; without such a pair the two that ran at most |V| in common.
    """
    compared = [pair["time_s"] for pair in verdict_of(store, rows, *at).compared]
    if compared:
        best = max(compared, key=lambda row: (row["baseline"] == "fused", row["num_visual"]))
        return best["series"], best["baseline_series"]
    ran = rows[rows["status"] == "ok"]
    sizes = {name: {*ran.loc[ran["series"] == name, "num_visual"]} for name in names}
    pairs = [(one, two) for i, two in enumerate(names) for one in names[i + 1 :]]
    return max(pairs, key=lambda pair: len(sizes[pair[0]] & sizes[pair[1]]))


def who_wins(table: pd.DataFrame, system: str, baseline: str) -> str:
    """Who is faster and by how much at the smallest and the largest |V| in common, and what else
    that costs or saves there: a sentence of ``side_by_side``'s table.
    """
    timed = table[(table["metric"] == "time_s") & table["ratio"].notna()]
    if timed.empty:
        at = int(table["num_visual"].max())
        return f"At |V| = {at:,} {system} takes {_costs(table, at)} than {baseline}."
    ends = timed.drop_duplicates("num_visual").iloc[[0, -1] if len(timed) > 1 else [0]]
    parts: list[str] = []
    winners: list[str] = []
    for row in ends.to_dict("records"):
        wins = row["ratio"] >= 1
        ratio = ratio_words(row["ratio"] if wins else 1 / row["ratio"])
        one, other = (system, baseline) if wins else (baseline, system)
        again = winners == [one]
        winners.append(one)
        speed = f"{ratio}× as fast" if again else f"{one} is {ratio}× as fast as {other}"
        parts.append(f"{speed} at |V| = {row['num_visual']:,}")
    costs = _costs(table, int(ends["num_visual"].iloc[-1]))
    also = f", where {system} takes {costs}" if costs else ""
    return f"{(' and ' if len({*winners}) == 1 else '; ').join(parts)}{also}."


def _costs(table: pd.DataFrame, at: int) -> str:
    """'1.04× less peak memory and 4.40× fewer FLOPs' at one |V|."""
    here = table[table["num_visual"] == at].to_dict("records")
    rows = {row["metric"]: {str(name): value for name, value in row.items()} for row in here}
    words = [amount_words(rows[name], *COSTS[name]) for name in COSTS if name in rows]
    return listed([word for word in words if word])


def _columns(system: str, baseline: str) -> tuple[str, ...]:
    return (
        "|V|",
        "times as fast",
        f"s/it, {system}",
        f"s/it, {baseline}",
        "times less memory",
        "times fewer FLOPs",
    )


def _rows(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """A line for each |V|."""
    lines: list[tuple[str, ...]] = []
    for size, own in table.groupby("num_visual"):
        by_metric = {row["metric"]: row for row in own.to_dict("records")}
        seconds = by_metric.get("time_s", {})
        lines.append(
            (
                f"{size:,}",
                _ratio(by_metric.get("time_s")),
                quantity(seconds.get("value"), "s"),
                quantity(seconds.get("baseline_value"), "s"),
                _ratio(by_metric.get("peak_bytes")),
                _ratio(by_metric.get("flops")),
            )
        )
    return lines


def _ratio(row: Mapping[Any, Any] | None) -> str:
    if row is None:
        return "n/a"
    if pd.isna(row["ratio"]):
        return "host-bound"
    return ratio_text({**row, "ratio_low": row["low"], "ratio_high": row["high"]})
