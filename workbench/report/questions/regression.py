"""Has it become slower? The newest run of a store against that of an earlier one."""

from typing import Any

import pandas as pd

from workbench.analysis import compare, environment_differences
from workbench.figures import quantity
from workbench.report.question import QUESTIONS, Answer, Question
from workbench.report.side import read_side
from workbench.telling.material import Material
from workbench.telling.page import Block, Section, Table
from workbench.telling.text import listed
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.units import plural

METRIC = "time_s"
MOST = 200
"""Rows of the table of cells; data/ holds all of them."""
ORDER = ("slower", "faster", "can't tell", "same")
COLUMNS = (
    "verdict",
    "new over old",
    "old",
    "new",
    "source",
    "device",
    "what",
    "system",
    "|V|",
    "note",
)


def _compared(material: Material) -> tuple[pd.DataFrame, list[str], str, str]:
    assert material.against is not None
    old, new = read_side(material.against, METRIC), read_side(material.path, METRIC)
    if (old.run, material.against.resolve()) == (new.run, material.path.resolve()):
        raise RequestError(f"run {old.run}: both stores are this one; name an earlier one")
    compared = compare(old.frame, new.frame, old.samples, new.samples, METRIC)
    return compared, environment_differences(old.environment, new.environment), old.run, new.run


def headline(material: Material) -> Table | None:
    """The number of cells by verdict and system."""
    compared, *_ = _compared(material)
    counts = compared.groupby(["series", "verdict"]).size().unstack(fill_value=0)
    rows = tuple(
        (str(name), *(f"{int(row.get(verdict, 0)):,}" for verdict in ORDER))
        for name, row in counts.iterrows()
    )
    return Table("Headline", ("system", *ORDER), rows, "Cells by verdict on their seconds.")


def answer(material: Material) -> Answer:
    """The verdicts, the worst of the slower cells, and whether the two runs may be compared."""
    compared, different, old, new = _compared(material)
    counts = compared["verdict"].value_counts()
    words = [f"{int(counts[verdict]):,} {verdict}" for verdict in ORDER if verdict in counts]
    first = f"Of {plural(len(compared), 'cell')}, from run {old} to run {new}: {listed(words)}."
    slower = compared[(compared["verdict"] == "slower") & compared["ratio"].notna()]
    if len(slower):
        worst = slower.sort_values("ratio").iloc[-1]
        second = (
            f"The worst is {worst['series']} at |V| = {worst['num_visual']:,} ({worst['model']},"
            f" {worst['scope']}, {worst['pass']}): {_interval(worst)} its seconds of before."
        )
    else:
        second = "No cell that ran in both has become slower beyond its interval."
    third = (
        f"The two environments differ ({'; '.join(different)}), so a change may be theirs."
        if different
        else "The two environments are the same."
    )
    return first, second, third


def _interval(row: Any) -> str:
    if pd.isna(row["low"]) or row["low"] == row["high"]:
        return f"{row['ratio']:.2f}×"
    return f"{row['ratio']:.2f}× ({row['low']:.2f} to {row['high']:.2f})"


def chapters(material: Material) -> tuple[Section, ...]:
    """The comparison, cell by cell, the slower ones first."""
    compared, *_ = _compared(material)
    place = {verdict: number for number, verdict in enumerate(ORDER)}
    ordered = sorted(
        compared.to_dict("records"),
        key=lambda row: (place[row["verdict"]], -_number(row["ratio"]), row["num_visual"]),
    )
    rows = tuple(
        (
            row["verdict"],
            "n/a" if pd.isna(row["ratio"]) else _interval(row),
            quantity(row["old"], "s"),
            quantity(row["new"], "s"),
            row["source"],
            row["device"],
            f"{row['model']} · {row['scope']} · {row['pass']}",
            row["series"],
            f"{row['num_visual']:,}",
            row["note"] if isinstance(row["note"], str) else "",
        )
        for row in ordered[:MOST]
    )
    rest = len(ordered) - len(rows)
    table = Table(
        "",
        COLUMNS,
        rows,
        "Medians of the samples; in parentheses the 95 % interval of their ratio."
        + (f" And {rest:,} more." if rest > 0 else ""),
    )
    return (Section("Cell by cell", "cells", (Block("", (), None, (table,)),)),)


def _number(value: object) -> float:
    return 0.0 if pd.isna(value) else float(value)  # type: ignore[call-overload,arg-type]


QUESTIONS.add(
    "regression",
    Question(
        title="Has it become slower?",
        fill="probes/default.py",
        answer=answer,
        headline=headline,
        chapters=chapters,
        two_stores=True,
    ),
)
