"""What does HiMix save over S-Attn and D-Attn?"""

import pandas as pd

from workbench.analysis import without_host_bound
from workbench.figures import in_order, quantity
from workbench.report.question import QUESTIONS, Answer, Question
from workbench.telling.material import Material
from workbench.telling.page import Table
from workbench.telling.sentences import at_place, place, places, ratio_words
from workbench.telling.text import listed
from workbench.vocabulary.units import plural

SYSTEM = "himix"
COLUMNS = ("model", "source", "at |V|", "system", "FLOPs", "peak memory", "s/it", "KV cache")


def beside_himix(frame: pd.DataFrame) -> pd.DataFrame:
    """Every row of the models, scopes and passes that HiMix has cells of."""
    keys = ["model", "scope", "pass", "source", "device"]
    has = frame["attention"].eq(SYSTEM).groupby([frame[k] for k in keys]).transform("any")
    return frame[has]


def _stands(material: Material) -> list[tuple[str, str, str, pd.DataFrame]]:
    """(model, title, place, the cells at the largest |V| of HiMix and most others)."""
    stands = []
    for subject in material.spoken:
        for source, device in places(subject.rows):
            rows = without_host_bound(at_place(subject.rows, source, device), ["time_s"])
            rows = rows[rows["flops"].notna()]
            at = set(rows.loc[rows["attention"] == SYSTEM, "num_visual"])
            counts = rows[rows["num_visual"].isin(at)].groupby("num_visual")["series"].nunique()
            if len(counts):
                best = counts[counts == counts.max()].index.max()
                name = place(source, device)
                cells = rows[rows["num_visual"] == best]
                stands.append((str(subject.facts["model"]), subject.title, name, cells))
    return stands


def headline(material: Material) -> Table | None:
    """Every system at the largest |V| that HiMix shares with most."""
    rows = []
    for _, title, where, cells in _stands(material):
        by_name = {row["series"]: row for row in cells.to_dict("records")}
        for name in in_order(cells):
            row = by_name[name]
            rows.append(
                (
                    title,
                    where,
                    f"{row['num_visual']:,}",
                    name if row["status"] == "ok" else f"{name} ({row['status']})",
                    quantity(row["flops"], "FLOP"),
                    quantity(row["peak_bytes"], "B"),
                    quantity(row["time_s"], "s"),
                    quantity(row["kv_cache_bytes"], "B"),
                )
            )
    return Table("Headline", COLUMNS, tuple(rows)) if rows else None


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
    _, title, where, cells = stands[0]
    own = cells[cells["attention"] == SYSTEM].iloc[0]
    rest = cells[cells["attention"] != SYSTEM]
    at = f"|V| = {own['num_visual']:,}"
    if rest.empty:
        lacking = f"No other system has a cell at {at} beside HiMix ({title}, {where})"
        return f"{lacking}.", f"{lacking}, so its seconds stand alone.", third
    by_name = {row["series"]: row for row in rest.to_dict("records")}
    order = in_order(rest)
    counts = [
        f"{name} {quantity(by_name[name]['flops'], 'FLOP')}"
        f" ({ratio_words(by_name[name]['flops'] / own['flops'])}×)"
        for name in order
    ]
    first = (
        f"At {at} HiMix takes {quantity(own['flops'], 'FLOP')}, {listed(counts)}"
        f" ({title}, {where})."
    )
    timed = [n for n in order if pd.notna(by_name[n]["time_s"]) and pd.notna(own["time_s"])]
    if not timed:
        return first, f"No cell at {at} has seconds ({title}, {where}).", third
    seconds = [
        f"{name} {quantity(by_name[name]['time_s'], 's')}"
        f" ({ratio_words(by_name[name]['time_s'] / own['time_s'])}×)"
        for name in timed
    ]
    second = (
        f"An iteration takes {quantity(own['time_s'], 's')}, {listed(seconds)} ({title}, {where})."
    )
    return first, second, third


QUESTIONS.add(
    "himix",
    Question(
        title="What does HiMix save over S-Attn and D-Attn?",
        fill="probes/himix.py",
        answer=answer,
        headline=headline,
        keep=beside_himix,
    ),
)
