"""Which kernel? The kernels of each system against each other."""

from collections.abc import Iterator

import pandas as pd

from workbench.analysis import without_host_bound
from workbench.figures import quantity
from workbench.report.material import Material
from workbench.report.page import Table
from workbench.report.question import QUESTIONS, Answer, Question
from workbench.report.sentences import RAN, at_place, place, places, ratio_words
from workbench.report.text import listed
from workbench.report.words import plural

LINE = ["attention", "fold", "chunk", "skip_last", "tiled", "compile"]
"""What must agree for two cells to differ in their kernel only."""


def several_kernels(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of systems that ran, or were refused, under at least two kernels."""
    groups = frame.groupby(["model", "scope", "pass", "source", "device", *LINE], dropna=False)
    return frame[groups["kernel"].transform("nunique") > 1]


def _races(material: Material) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(subject and place, system, its cells at the largest |V| that most kernels ran)."""
    for subject in material.spoken:
        for source, device in places(subject.rows):
            rows = without_host_bound(at_place(subject.rows, source, device), ["time_s"])
            ran = rows[(rows["status"] == "ok") & rows["time_s"].notna()]
            for _, own in ran.groupby(LINE, dropna=False):
                counts = own.groupby("num_visual")["kernel"].nunique()
                if counts.max() > 1:
                    at = counts[counts == counts.max()].index.max()
                    name = str(own["series"].iloc[0]).replace(f" · {own['kernel'].iloc[0]}", "")
                    what = f"{subject.title}, {place(source, device)}"
                    yield what, name, own[own["num_visual"] == at].sort_values("time_s")


def headline(material: Material) -> Table | None:
    """Seconds and memory of every kernel at the largest |V| that most of them ran."""
    rows = [
        (what, name, f"{cell['num_visual']:,}", cell["kernel"], quantity(cell["time_s"], "s"),
         f"{ratio_words(cell['time_s'] / race['time_s'].min())}×",
         quantity(cell["peak_bytes"], "B"))
        for what, name, race in _races(material)
        for cell in race.to_dict("records")
    ]  # fmt: skip
    columns = ("what", "system", "at |V|", "kernel", "s/it", "over the fastest", "peak memory")
    return Table("Headline", columns, tuple(rows)) if rows else None


def answer(material: Material) -> Answer:
    """The fastest kernel, the leanest, and those that refused."""
    race = next(_races(material), None)
    frame = material.frame
    refused = frame[frame["status"] == "unsupported"]
    third = (
        f"{plural(len(refused), 'cell')} refused by"
        f" {listed(sorted(refused['kernel'].unique()))}; the reasons are below."
        if len(refused) else "No kernel refused a cell."
    )  # fmt: skip
    if race is None:
        lacking = "No two kernels of one system ran at one |V|"
        return (f"{lacking}, so none is called faster.", f"{lacking}, so none is called leaner.",
                third)  # fmt: skip
    what, name, cells = race
    ran = RAN[str(cells["source"].iloc[0])]
    best, at = cells.iloc[0], f"|V| = {cells['num_visual'].iloc[0]:,}"
    others = [
        f"{row['kernel']} {quantity(row['time_s'], 's')}"
        f" ({ratio_words(row['time_s'] / best['time_s'])}×)"
        for row in cells.iloc[1:].to_dict("records")
    ]
    first = (
        f"{name} at {at}, the largest that most kernels {ran}: {best['kernel']} is fastest with"
        f" {quantity(best['time_s'], 's')}, then {listed(others)} ({what})."
    )
    lean = cells.dropna(subset=["peak_bytes"]).sort_values("peak_bytes")
    if lean.empty:
        return first, f"No cell at {at} has a peak ({what}).", third
    words = [f"{r['kernel']} {quantity(r['peak_bytes'], 'B')}" for r in lean.to_dict("records")]
    return first, f"Peak memory of {name} at {at}: {listed(words)} ({what}).", third


QUESTIONS.add(
    "kernel-choice",
    Question(
        title="Which kernel should it run on?",
        fill="probes/default.py",
        answer=answer,
        headline=headline,
        keep=several_kernels,
    ),
)
