"""What does D-Attn save over S-Attn? The default."""

from collections.abc import Sequence

import pandas as pd

from workbench.analysis import fit
from workbench.figures import in_order, quantity
from workbench.report.fits import per_token
from workbench.report.material import Material, Subject
from workbench.report.page import Table
from workbench.report.question import QUESTIONS, Answer, Question
from workbench.report.sentences import (
    AGAINST,
    BASELINES,
    Pair,
    against_rows,
    at_place,
    pairs_at,
    place,
    places,
    reached,
    times,
)
from workbench.report.text import listed

BASELINE = "s_attn"


def headline(material: Material) -> Table | None:
    """Every system but S-Attn against both baselines, for every subject and place."""
    rows = []
    for subject in material.spoken:
        for source, device in places(subject.rows):
            against = [
                pair for pair in pairs_at(subject.pairs, source, device)
                if pair["time_s"]["attention"] != BASELINE
            ]  # fmt: skip
            rows += [
                (subject.title, place(source, device), *cells) for cells in against_rows(against)
            ]
    note = "Baseline over system, at the largest |V| that neither found too large."
    columns = ("what", "source", *AGAINST)
    return Table("Headline", columns, tuple(rows), note) if rows else None


def answer(material: Material) -> Answer:
    """Speed at equal |V|, reach, growth: of the subject that says most, at its first place."""
    subject = _told(material)
    source, device = places(subject.rows)[0]
    rows, where = at_place(subject.rows, source, device), place(source, device)
    here = pairs_at(subject.pairs, source, device)
    whole = f"{subject.title}, {where}"
    return _speed(rows, here, whole), reached(rows, whole), _growth(rows, whole)


def _told(material: Material) -> Subject:
    """The first subject that holds both S-Attn and another system, else the first."""
    both = (
        s for s in material.spoken
        if {True, False} <= {name == BASELINE for name in s.rows["attention"]}
    )  # fmt: skip
    return next(both, material.spoken[0])


def _speed(rows: pd.DataFrame, found: Sequence[Pair], where: str) -> str:
    """The plainest system besides S-Attn against both baselines, where they share a |V|."""
    names = [name for name in in_order(rows) if (
        rows.loc[rows["series"] == name, "attention"] != BASELINE).all()]  # fmt: skip
    if not names:
        return f"There is no system besides S-Attn here, so nothing is compared ({where})."
    system = min(names, key=lambda name: (len(name), name))
    against = {
        pair["time_s"]["baseline"]: pair["time_s"]
        for pair in found
        if pair["time_s"]["series"] == system and not pd.isna(pair["time_s"]["ratio"])
    }
    words, last = [], None
    for row in against.values():
        at = (row["num_visual"], row["value"])
        takes = f"{quantity(row['value'], 's')} at |V| = {row['num_visual']:,}, "
        words.append(
            f"{takes if at != last else ''}{times(row)} as fast as {row['baseline_series']}"
            f" ({quantity(row['baseline_value'], 's')})"
        )
        last = at
    lacking = [f"{words} is missing" for name, words in BASELINES.items() if name not in against]
    if not words:
        return f"{system} is compared with nothing: {listed(lacking)} at any |V| ({where})."
    rest = f"; {listed(lacking)}" if lacking else ""
    return f"{system} takes {listed(words)}{rest} ({where})."


def _growth(rows: pd.DataFrame, where: str) -> str:
    fits, _ = fit(rows, ["time_s"])
    known = fits[fits["shape"].notna()]
    if known.empty:
        return f"How the seconds grow with |V| is not told: no line's points carry it ({where})."
    lines = {str(row["series"]): row for row in known.to_dict("records")}
    words = [
        f"{name} {lines[name]['shape']} ({per_token(lines[name])} per further token)"
        for name in in_order(known)
    ]
    silent = in_order(fits[~fits["series"].isin(known["series"])])
    rest = f"; the points of {listed(silent)} do not tell" if silent else ""
    return f"Seconds grow with |V|: {listed(words)}{rest} ({where})."


QUESTIONS.add(
    "dattn-vs-sattn",
    Question(
        title="What does a visual token cost under D-Attn, and under S-Attn?",
        fill="probes/default.py",
        answer=answer,
        headline=headline,
    ),
)
