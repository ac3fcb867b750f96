"""Overview: who wins and by how much, then the four figures that decide, beside the paper's."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from workbench.analysis import marks
from workbench.analysis.thin import thin
from workbench.dashboard.answers import choose_place, marked, verdict_of
from workbench.dashboard.controls import one, subject
from workbench.dashboard.crowd import MOST_LINES, quickest_first
from workbench.dashboard.save import show, theme
from workbench.dashboard.shell import answer, data, fold_comparisons, say_thinned, whole_sizes
from workbench.figures import Axes, in_order, quantity, scaling
from workbench.telling.fits import growth_words
from workbench.telling.published import D_ATTN, PAPER, S_ATTN, SETTING, SPEED_RATIO, VISUAL_RATIO
from workbench.telling.sentences import (
    Pair,
    Row,
    answers,
    at_place,
    both_marks,
    challengers,
    ratio_text,
    ratio_words,
)
from workbench.telling.text import listed, markdown
from workbench.telling.verdict import Verdict, first_system
from workbench.telling.words import endings, figure_caption
from workbench.vocabulary.units import plural


def render() -> None:
    """Draw the page."""
    store = data()
    st.title("What does a visual token cost?")
    rows = subject(store)
    top = st.container()
    with st.container(horizontal=True, gap="medium"):
        source, device = choose_place(rows)
        rows = at_place(rows, source, device)
        candidates = challengers(rows) or in_order(rows)
        first = first_system(rows)
        system = str(
            st.selectbox(
                "System",
                candidates,
                index=candidates.index(first) if first else 0,
                key="system",
                bind="query-params",
            )
        )
        linear = one("Axes", ("log", "linear"), "axes") == "linear"
    verdict = verdict_of(store, rows, source, device, system)
    fits, curves = store.fit(rows, ("time_s",))
    with top:
        answer([verdict.top(), verdict.reach(), verdict.growth(fits)], verdict.basis())
    names = _shown(rows, system)
    if rows["series"].nunique() > len(names):
        st.caption(
            f"{plural(len(names), 'system')} of {rows['series'].nunique():,} are shown;"
            " **Scaling** draws those that you pick."
        )
    rows, curves = (part[part["series"].isin(names)] for part in (rows, curves))
    _cards(rows, fits, verdict)
    if rows["time_s"].isna().all():
        st.info("No cell here has a time. **Runs** lists each with its reason.")
        return
    points = thin(rows, ("time_s",))
    axes = Axes(not linear, not linear)
    show(scaling(points, curves, store.looks, theme(), ("time_s",), axes), "overview", rows)
    say_thinned(points, rows)
    caption = figure_caption(rows, ("time_s",), bool(curves["low"].notna().any()))
    st.caption(" ".join(markdown(sentence) for sentence in caption))
    _claim()
    fold_comparisons(lambda: [*verdict.turns(), *answers(rows, store.pairs(rows))])
    st.caption(f"**{markdown(store.name)}** holds {store.once('held', store.frame, _held)}")


def _shown(rows: pd.DataFrame, system: str) -> list[str]:
    """The system, and of the others, the baselines first, as many as a reader can tell apart."""
    names = in_order(rows)
    names = quickest_first(rows) if len(names) > MOST_LINES else names
    return [system, *(name for name in names if name != system)][:MOST_LINES]


def _held(frame: pd.DataFrame) -> str:
    """'24 cells of mistral-7b-v0.3 under 3 systems from 1 run: 20 ran, …'."""
    models = listed([markdown(name) for name in sorted(frame["model"].unique())])
    return (
        f"{plural(len(frame), 'cell')} of {models}"
        f" under {plural(frame['series'].nunique(), 'system')}"
        f" from {plural(frame['run'].nunique(), 'run')}: {endings(frame)}."
    )


def _cards(rows: pd.DataFrame, fits: pd.DataFrame, verdict: Verdict) -> None:
    """Four figures of one system, each against both baselines."""
    own = verdict.pairs
    lacking = [("n/a", words) for words in verdict.lacking(own)]
    with st.container(key="in-pairs"):
        first, second, third, fourth = st.columns(4)
    with first:
        largest = [pair["time_s"] for pair in own if pair["time_s"]["size"] == "largest"]
        reach = [_reach(row, verdict) for row in largest]
        _card("Visual tokens that fit", [*reach, *lacking], claims=_claims(VISUAL_RATIO))
    with second:
        speed = [_speed(pair, verdict) for pair in own if not pd.isna(pair["time_s"]["ratio"])]
        none = [("n/a", "no |V| at which both were timed by the card")] if not speed else []
        _card("Speed at equal |V|", [*speed, *none, *lacking], claims=_claims(SPEED_RATIO))
    with third:
        _card("Time for 4× the tokens", _growth(fits, verdict), "Linear is ×4, quadratic ×16.")
    with fourth:
        _card("MFU by allowed pairs, at equal |V|", _mfu(rows, verdict))


def _claims(ratio: float) -> str:
    """The paper's claim beside ours."""
    return f"published: {ratio:.1f}×"


def _reach(row: Row, verdict: Verdict) -> tuple[str, str]:
    """The ratio of the largest |V|, and both of them."""
    baseline, top = verdict.name(row["furthest_series"]), row["baseline_max_visual"]
    if pd.isna(row["baseline_fails_at"]):
        ran = "fits" if row["source"] == "predicted" else "ran"
        return "no limit met", f"{baseline} {ran} up to {top:,}, where its sweep ends"
    bound = "at least " if pd.isna(row["fails_at"]) else ""
    return (
        f"{bound}{ratio_words(row['visual_ratio'])}×",
        f"{row['max_visual']:,} against {top:,} of {baseline}"
        + marked(
            [
                tuple(w for w in marks({"flags": flags}, timed=False))
                for flags in verdict.ends_of(row)
            ]
        ),
    )


def _speed(pair: Pair, verdict: Verdict) -> tuple[str, str]:
    row = pair["time_s"]
    kind = "the fastest fused, " if row["baseline"] == "fused" else ""
    meaning = f"vs {kind}{verdict.name(row['baseline_series'])}, at |V| = {row['num_visual']:,}"
    return ratio_text(row), meaning + marked(both_marks(pair))


def _growth(fits: pd.DataFrame, verdict: Verdict) -> list[tuple[str, str]]:
    """What four times the tokens take, of the system and then of its baselines."""
    names = [verdict.system, *(pair["time_s"]["baseline_series"] for pair in verdict.pairs)]
    lines = {row["series"]: row for row in fits.to_dict("records") if not pd.isna(row["growth"])}
    factors = []
    for name in dict.fromkeys(names):
        if name in lines:
            factor, _, ends = growth_words(lines[name]).partition(" ")
            shape = lines[name]["shape"]
            rate = f"{shape}, " if isinstance(shape, str) else ""
            mark_words = verdict.growth_marks(str(name), lines[name])
            of = f"{verdict.name(str(name))}, {rate}{ends.strip('()')}"
            factors.append((factor, of + (f" ({mark_words})" if mark_words else "")))
    return factors[:3] or [("n/a", "no system was timed at two sizes that tell")]


def _mfu(rows: pd.DataFrame, verdict: Verdict) -> list[tuple[str, str]]:
    """MFU of the system and the fused baseline at the largest |V| that they share."""
    pairs = [p["time_s"] for p in verdict.pairs if not pd.isna(p["time_s"]["ratio"])]
    fused = [row for row in pairs if row["baseline"] == "fused"] or pairs
    if not fused:
        return [("n/a", _why_no_mfu(rows))]
    at = fused[-1]["num_visual"]
    cells = rows[(rows["num_visual"] == at) & (rows["status"] == "ok")]
    shares = []
    for name in (verdict.system, fused[-1]["baseline_series"]):
        own = cells[(cells["series"] == name) & cells["mfu_causal"].notna()]
        if len(own):
            cell = own.iloc[-1].to_dict()
            dense = "" if pd.isna(cell["mfu"]) else f"; dense count {100 * cell['mfu']:.1f} %"
            meaning = f"{verdict.name(str(name))}, at |V| = {at:,}{dense}{marked([marks(cell)])}"
            shares.append((f"{100 * cell['mfu_causal']:.1f} %", meaning))
    return shares or [("n/a", _why_no_mfu(rows))]


def _why_no_mfu(rows: pd.DataFrame) -> str:
    """What the records say of it."""
    reasons = [flag for flags in rows["flags"] for flag in flags if flag.startswith("mfu:")]
    return reasons[0].partition(": ")[2] if reasons else "no cell here has it"


def _card(title: str, lines: Sequence[tuple[str, str]], note: str = "", claims: str = "") -> None:
    """A large figure with its meaning, then smaller ones."""
    with st.container(border=True, height="stretch"):
        st.markdown(f"**{markdown(title)}**")
        for place_, (figure, meaning) in enumerate(lines):
            size = "###" if place_ == 0 else "#####"
            st.markdown(f"{size} {markdown(figure)}\n{whole_sizes(meaning)}")
        for line in filter(None, (claims, note)):
            st.caption(markdown(line))


def _claim() -> None:
    st.caption(
        markdown(
            f"Published, not measured here ({PAPER}): {D_ATTN.system} reaches"
            f" {D_ATTN.max_visual:,}"
            f" visual tokens against {S_ATTN.max_visual:,} ({VISUAL_RATIO:.1f}×) and takes"
            f" {quantity(D_ATTN.seconds, 's', 4)} against {quantity(S_ATTN.seconds, 's', 4)}"
            f" ({SPEED_RATIO:.1f}×); {SETTING}."
        )
    )
