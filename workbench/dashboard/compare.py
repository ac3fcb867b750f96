"""Compare: two runs cell by cell, only what differs, with the interval of each ratio."""

import pandas as pd
import streamlit as st

from workbench.analysis import compare, environment_differences
from workbench.dashboard.controls import one
from workbench.dashboard.save import show, theme
from workbench.dashboard.shell import Data, data
from workbench.figures import agreement
from workbench.report.text import markdown
from workbench.store import RunInfo

METRICS = {"time": "time_s", "memory": "peak_bytes", "FLOPs": "flops"}
TOLERANCE = 0.02
SHOWN = {
    "verdict": "verdict", "series": "system", "num_visual": "|V|", "ratio": "new over old",
    "low": "from", "high": "to", "old": "old", "new": "new", "note": "note", "model": "model",
    "scope": "scope", "pass": "pass", "source": "source", "device": "device",
}  # fmt: skip
VERDICTS = ("slower", "faster", "can't tell", "same")


def render() -> None:
    """Draw the page."""
    store = data(choose_run=False)
    st.title("What changed between two runs?")
    if len(store.runs) < 2:
        st.info(
            "This store holds one run, and a comparison takes two. Sweep again after a change "
            "(`--new-run`), or put two stores into one: `workbench merge OLD.db NEW.db -o BOTH.db`"
        )
        return
    names = [run.id for run in store.runs]
    left, right = st.columns(2)
    with left:
        old = st.selectbox("Old", names, index=len(names) - 2, key="old", bind="query-params")
    with right:
        new = st.selectbox("New", names, index=len(names) - 1, key="new", bind="query-params")
    metric = METRICS[one("Compare", list(METRICS), "compared")]
    before, after = (next(r for r in store.runs if r.id == name) for name in (old, new))
    _environments(before, after)
    table = _compared(store, before.id, after.id, metric)
    if table["ratio"].notna().any():
        drawn = table[table["ratio"].notna()].rename(columns={"verdict": "said"})
        drawn = drawn.assign(
            note=drawn["said"] + drawn["note"].map(lambda n: f", {n}" if n else "")
        )
        show(agreement(drawn, store.looks, theme(), "new over old", TOLERANCE), "compare", table)
    else:
        st.info("The two runs have no cell in common that ran in both.")
    counts = table["verdict"].value_counts()
    st.markdown(" · ".join(f"**{counts[v]}** {v}" for v in VERDICTS if v in counts))
    differs = table[table["verdict"] != "same"]
    st.caption("Cells that are the same, within 2 % with 95 % confidence, are left out.")
    st.dataframe(
        differs[list(SHOWN)].rename(columns=SHOWN), hide_index=True, width="stretch",
        column_config={"|V|": st.column_config.NumberColumn(format="localized")},
    )  # fmt: skip


def _environments(before: RunInfo, after: RunInfo) -> None:
    differences = environment_differences(before.environment, after.environment)
    if differences:
        lines = "\n".join(f"- {markdown(line)}" for line in differences)
        st.warning(f"The environments differ, so a change may be theirs:\n\n{lines}")


def _compared(store: Data, old: str, new: str, metric: str) -> pd.DataFrame:
    frames, samples = [], []
    for run in (old, new):
        frames.append(store.frame[store.frame["run"] == run])
        timed = store.samples(run) if metric == "time_s" else {}
        samples.append({identity[1:]: values for identity, values in timed.items()})
    found = compare(frames[0], frames[1], samples[0], samples[1], metric, TOLERANCE)
    return found.astype({"ratio": "float64", "low": "float64", "high": "float64"})
