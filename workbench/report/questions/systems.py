"""What would another attention system cost, and what does it give up?"""

from dataclasses import replace

import pandas as pd

from workbench.analysis import legend, letters, limits, marks, together, without_host_bound
from workbench.analysis.efficiency import efficiency_lengths
from workbench.figures import in_order, quantity
from workbench.report.question import QUESTIONS, Answer, Front, Question
from workbench.telling.material import Material, Subject
from workbench.telling.page import Table
from workbench.telling.sentences import RAN, at_place, place, places, ratio_words
from workbench.telling.text import listed
from workbench.telling.words import OUTCOMES
from workbench.vocabulary.systems import entry

COLUMNS = (
    "system",
    "kind",
    "gives up",
    "at |V|",
    "FLOPs",
    "peak memory",
    "s/it",
    "largest |V|",
    "less time than S-Attn from |V| =",
)
BASELINE = "s_attn"
BEST, MOST = 3, 8
"""Systems of the answer, and of the first page's table, S-Attn's kernels among them."""


def _comparison(material: Material) -> tuple[Subject, str, str, pd.DataFrame] | None:
    """The subject with most systems, a place of it, and its rows."""
    best = None
    for subject in material.spoken:
        for source, device in places(subject.rows):
            rows = at_place(subject.rows, source, device)
            count = rows["attention"].nunique()
            if best is None or count > best[0]:
                best = count, (subject, source, device, rows)
    return None if best is None else best[1]


def _at(rows: pd.DataFrame) -> int:
    """The largest |V| at which most systems have FLOPs."""
    counts = rows[rows["flops"].notna()].groupby("num_visual")["series"].nunique()
    return int(counts[counts == counts.max()].index.max())


def _baseline(rows: pd.DataFrame) -> str | None:
    """S-Attn's series that is fastest where it ran last; None without one."""
    own = rows[rows["attention"] == BASELINE].dropna(subset=["flops"])
    if own.empty:
        return None
    last = own[own["num_visual"] == own["num_visual"].max()]
    return str(last.sort_values("time_s").iloc[0]["series"])


def headline(material: Material) -> Table | None:
    """Every system at the largest |V| that most share, and from where on it takes less time."""
    comparison = _comparison(material)
    if comparison is None or comparison[3]["flops"].isna().all():
        return None
    subject, source, device, rows = comparison
    at = _at(rows)
    here = rows[rows["num_visual"] == at]
    by_name = {row["series"]: row for row in here.to_dict("records")}
    furthest = {r["series"]: r["max_visual"] for r in limits(rows).to_dict("records")}
    starts = _starts(rows)
    table = []
    for name in in_order(here):
        row = by_name[name]
        listed = entry("attention", str(row["attention"]))
        end = furthest.get(name)
        table.append(
            (
                name if row["status"] == "ok" else f"{name} ({OUTCOMES[row['status']]})",
                "" if listed is None else listed.group,
                "" if listed is None else listed.gives_up,
                f"{at:,}",
                quantity(row["flops"], "FLOP"),
                quantity(row["peak_bytes"], "B"),
                quantity(row["time_s"], "s")
                + (letters(marks(row)) if pd.notna(row["time_s"]) else ""),
                "none" if end is None or pd.isna(end) else f"{end:,}",
                starts.get(name, ""),
            )
        )
    where = f"{subject.title}, {place(source, device)}; largest |V|: of those in the sweep."
    note = f"{where} {legend(marks(row) for row in by_name.values())}".strip()
    return Table("Headline", COLUMNS, tuple(table), note)


def _starts(rows: pd.DataFrame) -> dict[str, str]:
    """By series, in words, from which tested |V| on it takes less time than S-Attn."""
    baseline = _baseline(rows)
    if baseline is None:
        return {}
    table = efficiency_lengths(without_host_bound(rows, ["time_s"]), baseline, ["time_s"])
    starts = {}
    for row in table.to_dict("records"):
        start, before = row["less_from"], row["not_less_at"]
        if pd.isna(start):
            starts[row["series"]] = "never here"
        elif pd.isna(before):
            starts[row["series"]] = f"{start:,} or fewer"
        else:
            starts[row["series"]] = f"{start:,} (not at {before:,})"
    return starts


def front(material: Material) -> Front | None:
    """The systems of the answer, and a table of those that take least time; None where no cell has
    FLOPs.
    """
    table, comparison = headline(material), _comparison(material)
    if table is None or comparison is None:
        return None
    subject, source, device, rows = comparison
    baseline = _baseline(rows)
    quickest = _quickest(rows, _at(rows))["series"].tolist()
    plain = rows.loc[rows["attention"] == BASELINE, "series"].unique()
    chosen = [*plain, *quickest[: MOST - len(plain)]]
    some = list(table.rows)
    if len(some) > MOST:
        some = [row for row in some if any(_is_of(row[0], name) for name in chosen)]
    rest = len(table.rows) - len(some)
    note = f"{table.note} {len(some)} of {len(table.rows)} systems." if rest else table.note
    names = [*([baseline] if baseline else []), *quickest[:BEST]]
    short = replace(table, title="", rows=tuple(some), note=note)
    return Front(subject, source, device, names or in_order(rows), short)


def _is_of(cell: str, name: str) -> bool:
    """Whether a row's first cell names that system, perhaps with how it ended behind it."""
    return cell == name or cell.startswith(f"{name} (")


def _quickest(rows: pd.DataFrame, at: int) -> pd.DataFrame:
    """The systems besides S-Attn by their time at one |V|, a row each."""
    here = rows[(rows["num_visual"] == at) & rows["time_s"].notna()]
    rest = here[here["attention"] != BASELINE].sort_values("time_s")
    return rest.drop_duplicates("attention")


def answer(material: Material) -> Answer:
    """The cheapest systems by time at one |V|, who reaches furthest, and what that costs."""
    comparison = _comparison(material)
    if comparison is None or comparison[3]["flops"].isna().all():
        lacking = "No cell has FLOPs, so no system is compared."
        return lacking, lacking, lacking
    subject, source, device, rows = comparison
    where = f"{subject.title}, {place(source, device)}"
    at = _at(rows)
    here = rows[(rows["num_visual"] == at) & rows["time_s"].notna()]
    baseline = _baseline(rows)
    own = here[here["series"] == baseline]
    best = _quickest(rows, at).head(BEST)
    compared = [*own.to_dict("records"), *best.to_dict("records")]
    words = together(marks(row) for row in compared)
    marked = f"{where}, {words}" if words else where
    if own.empty or best.empty:
        first = f"At |V| = {at:,} no system has seconds beside S-Attn's ({where})."
    else:
        took = float(own.iloc[0]["time_s"])
        seconds = [
            f"{row['series']} {quantity(row['time_s'], 's')}"
            f" ({ratio_words(took / row['time_s'])}×)"
            for row in best.to_dict("records")
        ]
        first = (
            f"At |V| = {at:,} {baseline} takes {quantity(took, 's')}; fastest"
            f" {'are' if len(seconds) > 1 else 'is'} {listed(seconds)} ({marked})."
        )
    table = limits(rows).dropna(subset=["max_visual"])
    if table.empty:
        second = f"Nothing {RAN[source]} ({where})."
    else:
        top = int(table["max_visual"].max())
        names = in_order(rows[rows["series"].isin(table[table["max_visual"] == top]["series"])])
        second = f"The largest |V| that {RAN[source]} is {top:,}, under {listed(names)} ({where})."
    parts = [
        f"{system.label}: {system.loss or system.gives_up}"
        for name in best["attention"]
        if (system := entry("attention", str(name))) is not None
    ]
    third = "No other system is here."
    if parts:
        third = f"What they give up against S-Attn, by name. {'; '.join(parts)}."
        if "V2V" in third:
            third += " V2V is what visual tokens read of each other inside the decoder."
    return first, second, third


QUESTIONS.add(
    "systems",
    Question(
        title="What would another attention system cost, and what does it give up?",
        fill="probes/literature.py",
        answer=answer,
        headline=headline,
        front=front,
    ),
)
