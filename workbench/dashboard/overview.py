"""Overview: what is in the store, and the four figures that decide, beside the paper's claim."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from workbench.analysis import limits
from workbench.analysis.thin import thin
from workbench.dashboard.controls import AT_ONCE, one, subject
from workbench.dashboard.save import show, theme
from workbench.dashboard.shell import data, say_thinned
from workbench.figures import in_order, quantity, scaling
from workbench.report.fits import per_token
from workbench.report.published import D_ATTN, PAPER, S_ATTN, SETTING, SPEED_RATIO, VISUAL_RATIO
from workbench.report.sentences import (
    BASELINES,
    Pair,
    Row,
    answers,
    at_place,
    pairs_at,
    place,
    places,
    reach_ratio,
    times,
)
from workbench.report.text import listed, markdown
from workbench.report.words import endings, figure_caption, plural

DENSE = "Dense count: above 100 % where a causal kernel skips half of the pairs."


def render() -> None:
    """Draw the page."""
    store = data()
    st.title("What does a visual token cost?")
    st.markdown(f"**{markdown(store.name)}** holds {store.once('held', store.frame, _held)}")
    rows = subject(store)
    here = {place(*each): each for each in places(rows)}
    candidates = [name for name in in_order(rows) if _is_candidate(rows, name)]
    with st.container(horizontal=True, gap="medium"):
        where = one("Where", list(here), "where") if len(here) > 1 else next(iter(here))
        system = st.selectbox(
            "System", candidates or in_order(rows), key="system", bind="query-params"
        )
    rows = at_place(rows, *here[where])
    shown = _shown(rows, str(system))
    if rows["series"].nunique() > len(shown):
        st.caption(f"{plural(len(shown), 'system')} of {rows['series'].nunique():,} are shown;"
                   " **Scaling** draws those that you pick.")  # fmt: skip
    rows = rows[rows["series"].isin(shown)]
    compared = store.pairs(rows)
    fits, curves = store.fit(rows, ("time_s",))
    _cards(rows, fits, str(system), [p for p in compared if p["time_s"]["series"] == system])
    _claim()
    if rows["time_s"].isna().all():
        st.info("No cell here has a time. **Runs** lists each with its reason.")
        return
    drawn = thin(rows, ("time_s",))
    show(scaling(drawn, curves, store.looks, theme(), ("time_s",)), "overview", rows)
    say_thinned(drawn, rows)
    caption = figure_caption(rows, ("time_s",), bool(curves["low"].notna().any()))
    st.caption(" ".join(markdown(sentence) for sentence in caption))
    said = answers(rows, pairs_at(compared, *here[where]))
    st.markdown("\n".join(f"- {markdown(sentence)}" for sentence in said))


def _shown(rows: pd.DataFrame, system: str) -> list[str]:
    """The system, and of the others, the baselines first, as many as a figure can tell apart."""
    names = [name for name in in_order(rows) if name != system]
    return [system, *names[: AT_ONCE - 1]]


def _is_candidate(rows: pd.DataFrame, name: str) -> bool:
    return bool((rows.loc[rows["series"] == name, "attention"] != "s_attn").all())


def _held(frame: pd.DataFrame) -> str:
    """'24 cells of mistral-7b-v0.3 under 3 systems from 1 run: 20 ran, …'."""
    models = listed([markdown(name) for name in sorted(frame["model"].unique())])
    return (
        f"{plural(len(frame), 'cell')} of {models}"
        f" under {plural(frame['series'].nunique(), 'system')}"
        f" from {plural(frame['run'].nunique(), 'run')}: {endings(frame)}."
    )


def _cards(rows: pd.DataFrame, fits: pd.DataFrame, system: str, own: Sequence[Pair]) -> None:
    """Four figures of one system, each against both baselines."""
    against = {pair["time_s"]["baseline"]: pair for pair in own}
    lacking = [("n/a", f"{words} is missing") for name, words in BASELINES.items()
               if name not in against]  # fmt: skip
    first, second, third, fourth = st.columns(4)
    with first:
        bounds = limits(rows).set_index("series")
        ended = set(bounds.dropna(subset=["fails_at"]).index)
        reach = [_reach(pair["time_s"], ended, bounds) for pair in own]
        _card("Visual tokens that fit", [*reach, *lacking], claims=_claims(VISUAL_RATIO))
    with second:
        speed = [(times(pair["time_s"]), _at(pair)) for pair in own]
        _card("Speed at equal |V|", [*speed, *lacking], claims=_claims(SPEED_RATIO))
    with third:
        _card("One more visual token", _terms(fits, system))
    with fourth:
        lines = [(_mfu(rows, name), name) for name in [system, *_baselines(own)][:3]]
        if rows["mfu"].isna().all():
            lines = [("n/a", _why_no_mfu(rows))]
        _card("MFU at the largest |V|", lines, DENSE if rows["mfu"].max() > 1 else "")


def _claims(ratio: float) -> str:
    """The paper's claim beside ours."""
    return f"published: {ratio:.1f}×"


def _reach(row: Row, ended: Collection[str], bounds: pd.DataFrame) -> tuple[str, str]:
    """The ratio of the largest |V|, and what the two brackets leave open."""
    baseline = row["baseline_series"]
    if baseline in ended:
        fails, theirs = row["fails_at"], bounds.loc[baseline]
        low = row["max_visual"] / theirs["fails_at"]
        high: float | None = None if pd.isna(fails) else fails / max(theirs["max_visual"], 1)
        open_ = f"{low:,.2f} and up" if high is None else f"{low:,.2f} to {high:,.2f}"
        return reach_ratio(row, True), f"vs {baseline}; by the brackets {open_}"
    return reach_ratio(row, False), f"{baseline} met no limit up to {row['baseline_max_visual']:,}"


def _at(pair: Pair) -> str:
    row = pair["time_s"]
    return f"vs {row['baseline_series']}" + (
        "" if pd.isna(row["num_visual"]) else f" at |V| = {row['num_visual']:,}"
    )


def _baselines(own: Sequence[Pair]) -> list[str]:
    return list(dict.fromkeys(pair["time_s"]["baseline_series"] for pair in own))


def _terms(fits: pd.DataFrame, system: str) -> list[tuple[str, str]]:
    """The linear and quadratic terms of the system's time and of the fused baseline's."""
    found = [
        (per_token(row), f"{row['series']}{_interval(row)}") for row in fits.to_dict("records")
    ]
    found.sort(key=lambda each: not each[1].startswith(system))
    return found[:3] or [("n/a", "no timed cell")]


def _interval(row: Mapping[Any, Any]) -> str:
    """The linear term's 95 % interval."""
    if pd.isna(row["shape"]) or pd.isna(row["b_low"]):
        return ""
    return f"; 95 %: {quantity(row['b_low'], 's')} to {quantity(row['b_high'], 's')} a token"


def _why_no_mfu(rows: pd.DataFrame) -> str:
    """What the records say of it."""
    said = [flag for flags in rows["flags"] for flag in flags if flag.startswith("mfu:")]
    return said[0].partition(": ")[2] if said else "no cell here has it"


def _mfu(rows: pd.DataFrame, name: str) -> str:
    own = rows[(rows["series"] == name) & rows["mfu"].notna() & (rows["status"] == "ok")]
    if own.empty:
        return "n/a"
    best = own.sort_values("num_visual").iloc[-1]
    middle = f"{100 * best['mfu']:.1f} %"
    if pd.isna(best["time_q1_s"]):
        return middle
    # MFU is FLOPs over time: the quartiles of the one are those of the other, turned around.
    ends = [100 * best["mfu"] * best["time_s"] / best[name] for name in ("time_q3_s", "time_q1_s")]
    return f"{middle} ({ends[0]:.1f} to {ends[1]:.1f})"


def _card(title: str, lines: Sequence[tuple[str, str]], note: str = "", claims: str = "") -> None:
    """A large figure with its meaning, then smaller ones."""
    with st.container(border=True, height="stretch"):
        st.markdown(f"**{markdown(title)}**")
        for place_, (figure, meaning) in enumerate(lines):
            size = "###" if place_ == 0 else "#####"
            st.markdown(f"{size} {markdown(figure)}\n{markdown(meaning)}")
        for line in filter(None, (claims, note)):
            st.caption(markdown(line))


def _claim() -> None:
    st.caption(markdown(
        f"Published, not measured here ({PAPER}): {D_ATTN.system} reaches {D_ATTN.max_visual:,}"
        f" visual tokens against {S_ATTN.max_visual:,} ({VISUAL_RATIO:.1f}×) and takes"
        f" {quantity(D_ATTN.seconds, 's', 4)} against {quantity(S_ATTN.seconds, 's', 4)}"
        f" ({SPEED_RATIO:.1f}×); {SETTING}."
    ))  # fmt: skip
