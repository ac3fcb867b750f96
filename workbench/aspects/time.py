"""Where the time goes: by part of the model, from stored traces or as predicted."""

import pandas as pd

from workbench.aspects import ASPECTS, Aspect
from workbench.figures import in_order, quantity, spent
from workbench.telling.material import Material, Subject, drawn
from workbench.telling.page import Block, Table
from workbench.telling.sentences import at_place, place, places
from workbench.telling.spent import PREDICTED, spent_of
from workbench.telling.view import identities
from workbench.telling.words import setting

TITLE = "Where the time goes"
MISSING = (
    "No cell here has a stored trace or predicted operators; workbench sweep --trace DIR stores"
    " where the time of each measured cell goes."
)
TRACED = "One iteration under torch's profiler, which makes it longer than the timed ones."
GUESSED = "Predicted, not traced: each operator takes the longer of computing and moving."


def regions_block(material: Material, subject: Subject) -> Block:
    """The parts of each system at the largest |V| that most of a place's systems tell them of."""
    telling = material.telling
    rows = subject.rows[[identity in telling for identity in identities(subject.rows)]]
    split = [
        table
        for source, device in places(rows)
        if not (table := _component_times(material, at_place(rows, source, device))).empty
    ]
    if not split:
        return Block(TITLE, (MISSING,))
    tables, sentences = [], []
    for table in split:
        where = place(str(table["source"].iloc[0]), str(table["device"].iloc[0]))
        tables.append(_table(table, where))
        sentences += [most_of(own, where) for _, own in table.groupby("system", sort=False)]
    first = split[0]
    here = at_place(subject.rows, str(first["source"].iloc[0]), str(first["device"].iloc[0]))
    caption = (
        f"{setting(here)}, {place(str(first['source'].iloc[0]), str(first['device'].iloc[0]))},"
        f" |V| = {first['num_visual'].iloc[0]:,}.",
        _how(first),
    )
    figure = drawn(
        f"{subject.slug}-time",
        f"{subject.title}: time by part",
        lambda theme: spent(first, theme, True),
        caption,
    )
    return Block(TITLE, tuple(sentences), figure, tuple(tables))


def _component_times(material: Material, rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each system and part, the systems in the order of the legend."""
    counts = rows[rows["time_s"].notna()].groupby("num_visual")["series"].nunique()
    for num_visual in (
        counts.sort_index(ascending=False).sort_values(ascending=False, kind="stable").index
    ):
        own = rows[rows["num_visual"] == num_visual]
        records = material.details.some(identities(own))
        names = dict(zip(own["series"], identities(own), strict=True))
        tables = [
            spent_of(records[names[name]]).assign(
                system=name,
                source=own["source"].iloc[0],
                device=own["device"].iloc[0],
                num_visual=num_visual,
            )
            for name in in_order(own)
        ]
        table = pd.concat(tables, ignore_index=True)
        table = table[(table["by"] == "part") & (table["time_s"] > 0)]
        if len(table):
            return table
    return pd.DataFrame()


def _how(table: pd.DataFrame) -> str:
    return GUESSED if (table["how"] == PREDICTED).all() else TRACED


def most_of(own: pd.DataFrame, where: str = "") -> str:
    """Which region or operator takes most of one system's iteration, and what share."""
    first = own.sort_values("time_s", ascending=False).iloc[0]
    at = f" ({where})" if where else ""
    return (
        f"{first['system']} at |V| = {first['num_visual']:,}:"
        f" {first['time_s'] / own['time_s'].sum():.0%} of the time goes to {first['name']}{at}."
    )


def _table(told: pd.DataFrame, where: str) -> Table:
    systems = list(dict.fromkeys(told["system"]))
    total = told.groupby("system")["time_s"].sum()
    parts = told.groupby("name")["time_s"].sum().sort_values(ascending=False).index
    seconds = told.set_index(["name", "system"])["time_s"]
    rows = [
        (str(part), *(_share(seconds.get((part, name)), total[name]) for name in systems))
        for part in parts
    ]
    rows.append(("all parts", *(quantity(total[name], "s") for name in systems)))
    at = f"at |V| = {told['num_visual'].iloc[0]:,}"
    return Table(f"Time by part {at}, {where}", ("part", *systems), tuple(rows), _how(told))


def _share(seconds: float | None, total: float) -> str:
    return "" if seconds is None else f"{quantity(seconds, 's')} ({seconds / total:.0%})"


ASPECTS.add(
    "time",
    Aspect(
        order=7,
        page="Time",
        question="Where does the time go?",
        icon="timer",
        block=regions_block,
    ),
)
