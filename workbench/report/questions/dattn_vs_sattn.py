"""What does D-Attn save over S-Attn? The default."""

from workbench.report.question import QUESTIONS, Answer, Question
from workbench.telling.material import Material, Subject
from workbench.telling.page import Table
from workbench.telling.sentences import (
    AGAINST,
    against_rows,
    pairs_at,
    place,
    places,
    reached,
)
from workbench.telling.verdict import verdict_of

BASELINE = "s_attn"


def headline(material: Material) -> Table | None:
    """Every system but S-Attn against both baselines, for every subject and place."""
    rows = []
    for subject in material.spoken:
        for source, device in places(subject.rows):
            against = [
                pair
                for pair in pairs_at(subject.pairs, source, device)
                if pair["time_s"]["attention"] != BASELINE
            ]
            rows += [
                (subject.title, place(source, device), *cells) for cells in against_rows(against)
            ]
    note = (
        "Baseline over system at equal |V|: the one nearest to the paper's 9,000, and the largest"
        " at which both were timed. Fused: the fastest kernel there."
    )
    columns = ("what", "source", *AGAINST)
    return Table("Headline", columns, tuple(rows), note) if rows else None


def answer(material: Material) -> Answer:
    """Speed at equal |V|, reach, growth: of the subject that says most, at its first place."""
    verdict = verdict_of(_subject(material))
    reach = verdict.reach() or reached(verdict.rows, verdict.where)
    return verdict.speed(), reach, verdict.growth()


def _subject(material: Material) -> Subject:
    """The first subject that holds both S-Attn and another system, else the first."""
    both = (
        s
        for s in material.spoken
        if {True, False} <= {name == BASELINE for name in s.rows["attention"]}
    )
    return next(both, material.spoken[0])


QUESTIONS.add(
    "dattn-vs-sattn",
    Question(
        title="What does a visual token cost under D-Attn, and under S-Attn?",
        fill="probes/default.py",
        answer=answer,
        headline=headline,
    ),
)
