"""Will it fit? How many visual tokens each card holds, and what stops them."""

import pandas as pd

from workbench.analysis import limits
from workbench.figures import UNSPLIT, in_order, quantity
from workbench.report.question import QUESTIONS, Answer, Question
from workbench.telling.material import Material, Subject
from workbench.telling.page import Table
from workbench.telling.sentences import RAN, at_place, place, places
from workbench.telling.text import listed
from workbench.telling.view import memory_kinds


def headline(material: Material) -> Table | None:
    """The bracket of every system at every place."""
    rows = []
    for subject in material.spoken:
        near = material.capacities(subject.rows)
        for source, device in places(subject.rows):
            here = at_place(subject.rows, source, device)
            table = limits(here).to_dict("records")
            order = in_order(here)
            capacity = quantity(near.get(device), "B") if device in near else "unknown"
            for row in sorted(table, key=lambda row: order.index(row["series"])):
                rows.append(
                    (
                        subject.title,
                        place(source, device),
                        capacity,
                        row["series"],
                        "none" if pd.isna(row["max_visual"]) else f"{row['max_visual']:,}",
                        "not reached" if pd.isna(row["fails_at"]) else f"{row['fails_at']:,}",
                    )
                )
    columns = ("what", "source", "capacity", "system", "largest |V| that fits", "out of memory at")
    return Table("Headline", columns, tuple(rows)) if rows else None


def answer(material: Material) -> Answer:
    """Who reaches furthest, who ends where, and what takes the bytes there."""
    subject, source, device = _subject(material)
    rows, where = at_place(subject.rows, source, device), place(source, device)
    table = limits(rows)
    near = material.capacities(rows).get(device)
    room = f", of {quantity(near, 'B')}" if near else ""
    where = f"{subject.title}, {where}"
    whole = f"{where}{room}"
    ran = table.dropna(subset=["max_visual"])
    if ran.empty:
        first = f"Nothing fits: no cell {RAN[source]} ({whole})."
    else:
        top = ran["max_visual"].max()
        best = listed(
            in_order(rows[rows["series"].isin(ran.loc[ran["max_visual"] == top, "series"])])
        )
        first = f"The largest |V| that {RAN[source]} is {top:,}, under {best} ({whole})."
    failures = table.dropna(subset=["fails_at"])
    order = in_order(rows)
    ends = [
        f"{row['series']} between {_count(row['max_visual'])} and {row['fails_at']:,}"
        for row in sorted(failures.to_dict("records"), key=lambda r: order.index(r["series"]))
    ]
    second = (
        f"Memory ends for {listed(ends)} ({where})."
        if ends
        else f"No system ran out of memory, so no threshold is known ({where})."
    )
    return first, second, _stopped_by(material, rows, where)


def _subject(material: Material) -> tuple[Subject, str, str]:
    """The first subject and place at which a system ran out of memory, else the first."""
    every = [(s, *each) for s in material.spoken for each in places(s.rows)]
    ended = (one for one in every if (at_place(one[0].rows, *one[1:])["status"] == "oom").any())
    return next(ended, every[0])


def _count(value: object) -> str:
    return "0" if pd.isna(value) else f"{value:,}"  # type: ignore[call-overload]


def _stopped_by(material: Material, rows: pd.DataFrame, where: str) -> str:
    kinds = memory_kinds(rows, material.details)
    is_split = kinds.groupby("system")["kind"].transform(lambda own: UNSPLIT not in set(own))
    kinds = kinds[is_split.astype(bool)]
    if kinds.empty:
        return (
            f"What takes the bytes is unknown: no cell's record splits its peak by kind ({where})."
        )
    words = []
    for system, own in kinds.groupby("system", sort=False):
        last = own[own["num_visual"] == own["num_visual"].max()]
        most = last.loc[last["bytes"].idxmax()]
        share = most["bytes"] / last["bytes"].sum()
        words.append(f"{system} {most['kind']} ({share:.0%} at |V| = {most['num_visual']:,})")
    return f"What takes most of the peak at the largest |V|: {listed(words)} ({where})."


QUESTIONS.add(
    "will-it-fit",
    Question(
        title="Will it fit, and what stops it?",
        fill="probes/long_video.py",
        answer=answer,
        headline=headline,
        keep=lambda frame: frame[frame["status"].isin(["ok", "oom"])],
    ),
)
