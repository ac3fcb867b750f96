"""What does HiMix save over S-Attn and D-Attn?"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pandas as pd

from workbench.analysis import legend, letters, marks, together, without_host_bound
from workbench.figures import in_order, quantity
from workbench.report.question import QUESTIONS, Answer, Front, Question
from workbench.telling.material import Material, Subject
from workbench.telling.page import Table
from workbench.telling.sentences import at_place, place, places, ratio_words
from workbench.telling.text import listed
from workbench.telling.words import OUTCOMES
from workbench.vocabulary.units import plural

SYSTEM = "himix"
COLUMNS = ("model", "source", "at |V|", "system", "FLOPs", "peak memory", "s/it", "KV cache")


def beside_himix(frame: pd.DataFrame) -> pd.DataFrame:
    """Every row of the models, scopes and passes that HiMix has cells of."""
    keys = ["model", "scope", "pass", "source", "device"]
    has = frame["attention"].eq(SYSTEM).groupby([frame[k] for k in keys]).transform("any")
    return frame[has]


class Stand(NamedTuple):
    """HiMix beside the others at one |V|."""

    subject: Subject
    source: str
    device: str
    cells: pd.DataFrame
    """The largest |V| of HiMix and most others."""

    @property
    def others(self) -> pd.DataFrame:
        """What ran of S-Attn under eager and its fastest fused kernel, and of each other system
        in its plainest form.
        """
        ran = self.cells[(self.cells["status"] == "ok") & (self.cells["attention"] != SYSTEM)]
        is_fused = (ran["attention"] == "s_attn") & (ran["kernel"] != "eager")
        ran = ran.assign(is_fused=is_fused, length=ran["series"].str.len().where(~is_fused, 0))
        ran = ran.sort_values(["length", "time_s"])
        return ran.drop_duplicates(["attention", "is_fused"])


def _stands(material: Material) -> list[Stand]:
    """The subject that says most first."""
    stands = []
    for subject in material.spoken:
        for source, device in places(subject.rows):
            rows = without_host_bound(at_place(subject.rows, source, device), ["time_s"])
            rows = rows[rows["flops"].notna()]
            at = set(rows.loc[rows["attention"] == SYSTEM, "num_visual"])
            counts = rows[rows["num_visual"].isin(at)].groupby("num_visual")["series"].nunique()
            if len(counts):
                best = counts[counts == counts.max()].index.max()
                cells = rows[rows["num_visual"] == best]
                stands.append(Stand(subject, source, device, cells))
    return stands


def headline(material: Material) -> Table | None:
    """Every system at the largest |V| that HiMix shares with most."""
    rows = []
    stands = _stands(material)
    for stand in stands:
        rows += [
            (stand.subject.title, place(stand.source, stand.device), *cells)
            for cells in _lines(stand.cells)
        ]
    note = _legend(stand.cells for stand in stands)
    return Table("Headline", COLUMNS, tuple(rows), note) if rows else None


def _lines(cells: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    """|V|, system and its figures, in the order of the legend."""
    by_name = {row["series"]: row for row in cells.to_dict("records")}
    for name in in_order(cells):
        row = by_name[name]
        yield (
            f"{row['num_visual']:,}",
            name if row["status"] == "ok" else f"{name} ({OUTCOMES[row['status']]})",
            quantity(row["flops"], "FLOP"),
            quantity(row["peak_bytes"], "B"),
            quantity(row["time_s"], "s")
            + (letters(marks(row)) if pd.notna(row["time_s"]) else ""),
            quantity(row["kv_cache_bytes"], "B"),
        )


def _legend(frames: Iterable[pd.DataFrame]) -> str:
    return legend(marks(row) for cells in frames for row in cells.to_dict("records"))


def front(material: Material) -> Front | None:
    """The systems at the |V| of the answer; None where HiMix has no FLOPs."""
    stands = _stands(material)
    if not stands:
        return None
    subject, source, device, cells = stands[0]
    own = cells.loc[cells["attention"] == SYSTEM, "series"]
    names = [*stands[0].others["series"], *own]
    table = Table("", COLUMNS[2:], tuple(_lines(cells)), _legend([cells]))
    return Front(subject, source, device, names, table, ("flops", "time_s"))


def answer(material: Material) -> Answer:
    """FLOPs, seconds and memory of HiMix beside the others; then which models it covers."""
    models = sorted(material.frame.loc[material.frame["attention"] == SYSTEM, "model"].unique())
    third = f"HiMix has cells of {plural(len(models), 'model')} here: {listed(models)}."
    stands = _stands(material)
    if not stands:
        lacking = "No cell of HiMix has its FLOPs"
        return (
            f"{lacking}, so no count is compared.",
            f"{lacking}, nor seconds beside them.",
            third,
        )
    subject, source, device, cells = stands[0]
    own, rest = cells[cells["attention"] == SYSTEM].iloc[0], stands[0].others
    words = together(marks(row) for row in [own.to_dict(), *rest.to_dict("records")])
    where = f"{subject.title}, {place(source, device)}{f', {words}' if words else ''}"
    at = f"|V| = {own['num_visual']:,}"
    if rest.empty:
        lacking = f"No other system ran at {at} beside HiMix ({where})"
        return f"{lacking}.", f"{lacking}, so its seconds stand alone.", third
    by_name = {row["series"]: row for row in rest.to_dict("records")}
    order = in_order(rest)
    counts = [
        f"{name} {quantity(by_name[name]['flops'], 'FLOP')}"
        f" ({ratio_words(by_name[name]['flops'] / own['flops'])}×)"
        for name in order
    ]
    first = f"At {at} HiMix takes {quantity(own['flops'], 'FLOP')}, {listed(counts)} ({where})."
    timed = [n for n in order if pd.notna(by_name[n]["time_s"]) and pd.notna(own["time_s"])]
    if not timed:
        return first, f"No cell at {at} has seconds ({where}).", third
    seconds = [
        f"{name} {quantity(by_name[name]['time_s'], 's')}"
        f" ({ratio_words(by_name[name]['time_s'] / own['time_s'])}×)"
        for name in timed
    ]
    second = f"An iteration takes {quantity(own['time_s'], 's')}, {listed(seconds)} ({where})."
    return first, second, third


QUESTIONS.add(
    "himix",
    Question(
        title="What does HiMix save over S-Attn and D-Attn?",
        fill="probes/himix.py",
        answer=answer,
        headline=headline,
        front=front,
        keep=beside_himix,
    ),
)
