"""Will it fit? How many visual tokens each card holds, and what stops them."""

from collections.abc import Mapping

import pandas as pd

from workbench.analysis import legend, letters, limits, marks, short_names
from workbench.aspects.thresholds import draw_thresholds
from workbench.figures import UNSPLIT, in_order, quantity
from workbench.figures.memory import KIND_NAMES
from workbench.report.question import QUESTIONS, Answer, Front, Question
from workbench.telling.material import Material, Subject
from workbench.telling.page import Table
from workbench.telling.sentences import (
    RAN,
    at_place,
    emulated,
    of_points,
    place,
    places,
    shared_options,
)
from workbench.telling.text import listed
from workbench.telling.verdict import telling_systems
from workbench.telling.view import memory_kinds

MOST = 8
"""Systems of the first page."""


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


def front(material: Material) -> Front:
    """The bracket of each system of which the answer is, and the peak at its lower end."""
    subject, source, device = _subject(material)
    rows = at_place(subject.rows, source, device)
    chosen = set(telling_systems(rows)[:MOST])
    every = in_order(rows)
    names = [name for name in every if name in chosen]
    short = short_names(every)
    ends = {str(row["series"]): row for row in limits(rows).to_dict("records")}
    lines, marked = [], []
    for name in names:
        end = ends[name]
        top, words, peak = "none", "", "–"
        if not pd.isna(end["max_visual"]):
            cell = of_points(rows, {(name, int(end["max_visual"]))}).iloc[-1].to_dict()
            own = marks(cell, timed=False)
            marked.append(own)
            top, words = f"{end['max_visual']:,}", letters(own)
            peak = quantity(cell["peak_bytes"], "B")
        beyond = "not reached" if pd.isna(end["fails_at"]) else f"{end['fails_at']:,}"
        lines.append((short[name], f"{top}{words}", beyond, f"{peak}{words}"))
    near = material.capacities(rows).get(device)
    note = [f"A process can have {quantity(near, 'B')}."] if near else []
    note += [legend(marked)] if any(marked) else []
    note += [f"{len(names)} of {len(every)} systems."] if len(names) < len(every) else []
    columns = ("system", "largest |V| that fits", "out of memory at", "peak at the largest")
    table = Table("", columns, tuple(lines), " ".join(note))
    chosen_rows = rows[rows["series"].isin(names)]
    has_end = limits(chosen_rows)["fails_at"].notna().any()
    # Where no memory ended the peaks tell how far away that is.
    figure = draw_thresholds(material, subject, chosen_rows) if has_end else None
    return Front(subject, source, device, names, table, ("peak_bytes",), figure)


def answer(material: Material) -> Answer:
    """Who reaches furthest, who ends where, and what takes the bytes there."""
    subject, source, device = _subject(material)
    rows, where = at_place(subject.rows, source, device), place(source, device)
    table = limits(rows)
    near = material.capacities(rows).get(device)
    room = f" within {quantity(near, 'B')}" if near else ""
    short = short_names(in_order(rows))
    points = {
        (str(row["series"]), int(at))
        for row in table.to_dict("records")
        for at in (row["max_visual"], row["fails_at"])
        if not pd.isna(at)
    }
    where = f"{subject.title}, {where}{shared_options(in_order(rows))}"
    where = f"{where}{emulated(of_points(rows, points))}"
    ran = table.dropna(subset=["max_visual"])
    if ran.empty:
        first = f"Nothing fits: no cell {RAN[source]}{room} ({where})."
    else:
        top = ran["max_visual"].max()
        furthest = set(ran.loc[ran["max_visual"] == top, "series"])
        best = listed([short[name] for name in in_order(rows) if name in furthest])
        first = f"The largest |V| that {RAN[source]}{room} is {top:,}, under {best} ({where})."
    failures = table.dropna(subset=["fails_at"])
    order = in_order(rows)
    ends = [
        f"{short[row['series']]} between {_count(row['max_visual'])} and {row['fails_at']:,}"
        for row in sorted(failures.to_dict("records"), key=lambda r: order.index(r["series"]))
    ]
    second = (
        f"Memory ends for {listed(ends)} ({where})."
        if ends
        else f"No system ran out of memory, so no threshold is known ({where})."
    )
    return first, second, _stopped_by(material, rows, short, where)


def _subject(material: Material) -> tuple[Subject, str, str]:
    """The first subject and place at which a system ran out of memory, else the first."""
    every = [(s, *each) for s in material.spoken for each in places(s.rows)]
    ended = (one for one in every if (at_place(one[0].rows, *one[1:])["status"] == "oom").any())
    return next(ended, every[0])


def _count(value: object) -> str:
    return "0" if pd.isna(value) else f"{value:,}"  # type: ignore[call-overload]


def _stopped_by(
    material: Material, rows: pd.DataFrame, short: Mapping[str, str], where: str
) -> str:
    kinds = memory_kinds(rows, material.details)
    cells = kinds.groupby(["system", "num_visual"])["kind"]
    is_split = cells.transform(lambda own: UNSPLIT not in set(own))
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
        kind = KIND_NAMES.get(str(most["kind"]), most["kind"])
        at = f"{share:.0%} at |V| = {most['num_visual']:,}"
        words.append(f"{short[str(system)]} {kind} ({at})")
    largest = "the largest |V| whose record splits it"
    return f"What takes most of the peak at {largest}: {listed(words)} ({where})."


QUESTIONS.add(
    "will-it-fit",
    Question(
        title="Will it fit, and what stops it?",
        fill="probes/long_video.py",
        answer=answer,
        headline=headline,
        front=front,
        keep=lambda frame: frame[frame["status"].isin(["ok", "oom"])],
    ),
)
