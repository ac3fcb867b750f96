"""Compare: two systems at equal |V|, or two runs cell by cell, with the interval of each ratio."""

from typing import Any, NamedTuple

import pandas as pd
import streamlit as st

from workbench.analysis import compare, environment_differences, systems_of
from workbench.analysis.thin import thin
from workbench.dashboard import two_systems
from workbench.dashboard.controls import one, subject_of_many
from workbench.dashboard.reading import Data, kinds_of
from workbench.dashboard.save import show, theme
from workbench.dashboard.shell import answer, data, newest, opened, say_thinned, stores_here
from workbench.figures import agreement, looks
from workbench.store import RunInfo
from workbench.telling.sentences import place, places
from workbench.telling.text import listed, markdown
from workbench.telling.words import spread
from workbench.vocabulary.metrics import METRICS as METRIC_OF
from workbench.vocabulary.units import AXIS_UNITS, plural

METRICS = {"time": "time_s", "memory": "peak_bytes", "FLOPs": "flops"}
TOLERANCE = 0.02
SHOWN = {
    "verdict": "verdict",
    "series": "system",
    "num_visual": "|V|",
    "ratio": "new over old",
    "low": "from",
    "high": "to",
    "old": "old",
    "new": "new",
    "note": "note",
    "model": "model",
    "scope": "scope",
    "pass": "pass",
    "source": "source",
    "device": "device",
}
VERDICTS = ("slower", "faster", "can't tell", "same")
MOST = 2_000
"""Rows of the table; the download holds all."""


class Side(NamedTuple):
    """A run and the store that holds it."""

    store: Data
    run: RunInfo

    @property
    def rows(self) -> pd.DataFrame:
        """The records of the run, without metrics."""
        return self.store.frame[self.store.frame["run"] == self.run.id]


SYSTEMS, RUNS = "two systems", "two runs"
OF_RUNS = ("old_store", "old", "new")
"""Names in a link that are of two runs."""


def render() -> None:
    """Draw the page."""
    here = data(choose_run=False)
    top = st.container()
    kinds_first = (RUNS, SYSTEMS) if _is_of_runs(here) else (SYSTEMS, RUNS)
    kind = one("Compare", kinds_first, "between")
    if kind == SYSTEMS:
        with top:
            st.title("Which of two costs less?")
        two_systems.draw(newest(here), top)
    else:
        with top:
            st.title("What changed between two runs?")
        _two_runs(here, top)


def _is_of_runs(here: Data) -> bool:
    """Whether the link asks for runs, or two runs of the store hold a cell in common."""
    if any(name in st.query_params for name in OF_RUNS):
        return True
    return (
        here.once("runs that share a cell", here.frame, lambda _: _shared(here, here)) is not None
    )


def _two_runs(here: Data, top: Any) -> None:
    """The comparison of the runs that the reader picks; the answer goes into ``top``."""
    sides = _sides(here)
    if sides is None:
        st.info(
            "This store holds one run, and a comparison takes two. Sweep again after a change"
            " (`--new-run`), or pick the store of before as the old one."
        )
        return
    old, new = sides
    metric = METRICS[one("Figure", list(METRICS), "compared")]
    _environments(old.run, new.run)
    table = _compared(old, new, metric)
    matched = table[table["ratio"].notna()]
    with top:
        answer([_top(table, matched, metric)], f"{old.run.id} against {new.run.id}")
    if len(matched):
        points = thin(matched, ("ratio",), lines=("series", "source", "device"))
        notes = points["verdict"] + points["note"].map(lambda note: f", {note}" if note else "")
        points = points.assign(note=notes)
        systems = (side.store.once("systems", side.store.frame, systems_of) for side in sides)
        palette = looks(dict.fromkeys(each for some in systems for each in some))
        show(agreement(points, palette, theme(), "new over old", TOLERANCE), "compare", table)
        say_thinned(points, matched)
        st.caption(_caption(matched, metric))
    else:
        st.info(
            "They measured different things. Pick others, or sweep again after a change"
            " (`workbench sweep … --new-run`): its newest two runs stand here then."
        )
        return
    counts = table["verdict"].value_counts()
    st.markdown(" · ".join(f"**{counts[v]:,}** {v}" for v in VERDICTS if v in counts))
    _differing(table, metric)


def _top(table: pd.DataFrame, matched: pd.DataFrame, metric: str) -> str:
    """How many cells became slower or faster, and by how much at most."""
    if matched.empty:
        return "These two runs share no cell that ran in both, so nothing is compared."
    name = METRIC_OF[metric].label
    counts = table["verdict"].value_counts()
    changed = matched[matched["verdict"].isin(["slower", "faster"])]
    words = listed([f"{counts[verdict]:,} {verdict}" for verdict in VERDICTS if verdict in counts])
    if changed.empty:
        return f"{name} of {plural(len(matched), 'cell')}: {words}."
    far = changed["ratio"].where(changed["ratio"] >= 1, 1 / changed["ratio"])
    most = changed.assign(far=far).sort_values("far").iloc[-1]
    return (
        f"{name} of {plural(len(matched), 'cell')}: {words}; most changed"
        f" {most['series']} at |V| = {most['num_visual']:,}, {most['ratio']:.2f}× of before."
    )


def _caption(matched: pd.DataFrame, metric: str) -> str:
    """What was compared, on what, with how many samples."""
    about = METRIC_OF[metric]
    words = [
        f"{about.label} ({about.convention}), new over old: {plural(len(matched), 'cell')} of"
        f" {listed(sorted(matched['model'].unique()))},"
        f" {listed([place(*each) for each in places(matched)])}."
    ]
    counts = pd.concat([matched["old_num_samples"], matched["new_num_samples"]]).dropna()
    if counts.max() > 0:
        words.append(
            f"Medians of {spread(counts, 'sample')}; bars are the 95 % interval of their ratio."
        )
    words.append(f"The grey band is {100 * TOLERANCE:g} % about equal.")
    return markdown(" ".join(words))


def _sides(here: Data) -> tuple[Side, Side] | None:
    """The two runs that the reader picked, the newest two at first; None where there is one."""
    names = [here.name, *(name for name in stores_here() if name != here.name)]
    name = here.name
    with st.container(key="in-rows"):
        *first, second, third = st.columns(2 + (len(names) > 1))
    for column in first:
        with column:
            name = str(
                st.selectbox("Store of the old run", names, key="old_store", bind="query-params")
            )
    there = here if name == here.name else opened(name, stores_here()[name])
    if there is here and len(here.runs) < 2:
        return None
    before, after = _comparable(there, here)
    with second:
        old = _run(there, "Old run", "old", before)
    with third:
        new = _run(here, "New run", "new", after)
    return Side(there, old), Side(here, new)


def _comparable(there: Data, here: Data) -> tuple[str, str]:
    """The newest two runs that share a cell; the newest two where none do."""
    older, newer = ([run.id for run in store.runs] for store in (there, here))
    return _shared(there, here) or (older[-2] if there is here else older[-1], newer[-1])


def _shared(there: Data, here: Data) -> tuple[str, str] | None:
    """The newest two runs that share a cell; None where none do."""
    older, newer = ([run.id for run in store.runs] for store in (there, here))
    cells_of = {store.name: _cells(store) for store in (there, here)}
    for new in reversed(newer):
        for old in reversed(older):
            if there is here and older.index(old) >= newer.index(new):
                continue
            if cells_of[there.name].get(old, set()) & cells_of[here.name].get(new, set()):
                return old, new
    return None


def _cells(store: Data) -> dict[str, set[tuple[str, str, str]]]:
    """What each run holds: (key, source, device) of every record that ran."""
    rows = store.frame.loc[store.frame["status"] == "ok", ["run", "key", "source", "device"]]
    return {
        str(run): set(own[["key", "source", "device"]].itertuples(index=False, name=None))
        for run, own in rows.groupby("run", sort=False)
    }


def _run(store: Data, label: str, key: str, first: str) -> RunInfo:
    runs = {run.id: run for run in store.runs}
    names = list(runs)
    return runs[
        str(st.selectbox(label, names, index=names.index(first), key=key, bind="query-params"))
    ]


def _environments(before: RunInfo, after: RunInfo) -> None:
    differences = environment_differences(before.environment, after.environment)
    if differences:
        lines = "\n".join(f"- {markdown(line)}" for line in differences)
        st.warning(f"The environments differ, so a change may be theirs:\n\n{lines}")


def _compared(old: Side, new: Side, metric: str) -> pd.DataFrame:
    both = pd.concat([old.rows.assign(side="old"), new.rows.assign(side="new")])
    against = f"kinds, and of {old.store.identity(old.rows)}"
    both = subject_of_many(both, new.store.once(against, new.rows, lambda _: kinds_of(both)))
    before, after = (both[both["side"] == s].drop(columns="side") for s in ("old", "new"))
    return new.store.once(
        f"{metric} against {old.store.identity(before)}",
        after,
        lambda rows: _judged(old.store, before, new.store, rows, metric),
    )


def _judged(
    old: Data, before: pd.DataFrame, new: Data, after: pd.DataFrame, metric: str
) -> pd.DataFrame:
    was, now = (
        {identity[1:]: values for identity, values in store.samples(rows).items()}
        if metric == "time_s"
        else {}
        for store, rows in ((old, before), (new, after))
    )
    judged = compare(old.whole(before), new.whole(after), was, now, metric, TOLERANCE)
    return judged.astype({"ratio": "float64", "low": "float64", "high": "float64"})


def _differing(table: pd.DataFrame, metric: str) -> None:
    """The cells that are not the same, those that changed most first."""
    differs = table[table["verdict"] != "same"]
    far = differs["ratio"].where(differs["ratio"] >= 1, 1 / differs["ratio"])
    rank = differs["verdict"].map(VERDICTS.index)
    differs = differs.assign(rank=rank, far=far).sort_values(
        ["rank", "far"], ascending=[True, False], kind="stable"
    )
    words = "Cells that are the same, within 2 % with 95 % confidence, are left out."
    if len(differs) > MOST:
        words += f" The table shows {MOST:,} of {len(differs):,}, the largest changes first."
    st.caption(words)
    unit, base = AXIS_UNITS[METRIC_OF[metric].unit]
    most = differs.head(MOST)[list(SHOWN)]
    most = most.assign(**{name: pd.to_numeric(most[name]) / base for name in ("old", "new")})
    names = SHOWN | {name: f"{name}, {unit}" for name in ("old", "new")}
    number = st.column_config.NumberColumn
    formats = dict.fromkeys(("new over old", "from", "to"), "%.3f")
    formats |= {"|V|": "localized", names["old"]: "%.4g", names["new"]: "%.4g"}
    st.dataframe(
        most.rename(columns=names),
        hide_index=True,
        width="stretch",
        column_config={name: number(format=words) for name, words in formats.items()},
    )
