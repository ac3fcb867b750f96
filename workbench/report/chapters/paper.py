"""The paper's Tables 2 and 3, each row beside what this store has of it."""

from typing import Any

import pandas as pd

from workbench.figures import quantity
from workbench.telling import words
from workbench.telling.material import FILL, Material
from workbench.telling.page import Block, Section, Table
from workbench.telling.predicted import TABLE_2_BESIDE, TABLE_2_NOTE, table_2_rows
from workbench.telling.published import ARXIV, MERGING, QUALITY, SETTING, TABLE_2, TABLE_3
from workbench.telling.sentences import place
from workbench.telling.text import listed

MODELS = ("mistral-7b-v0.3",)
"""The model of both tables."""
SCOPES = ("decoder", "lvlm")
QUOTED = (
    f"Published columns are quoted from {ARXIV}; quality was never measured here."
    f" Setting: {SETTING}."
)


def paper_chapter(material: Material) -> Section:
    """Both tables; where the store holds nothing of one, the sweep that would fill it."""
    frame = material.frame
    rows = frame[
        frame["model"].isin(MODELS) & frame["scope"].isin(SCOPES) & (frame["pass"] == "train")
    ]
    return Section(
        "Beside the paper",
        "paper",
        (_throughput(material, rows), _merging(material, rows)),
    )


def _throughput(material: Material, rows: pd.DataFrame) -> Block:
    title = "Table 2: largest |V| and seconds per iteration"
    ours = rows[rows["attention"].isin([row[0] for row in TABLE_2])]
    published = tuple((row[1], "published", *row[2:4], "", *row[4:]) for row in TABLE_2)
    own = tuple(
        (
            str(series),
            place(str(source), str(device)),
            *_reach(cells),
            words.setting(cells),
            *("" for _ in QUALITY),
        )
        for (source, device, _, series), cells in _lines(ours)
    )
    table = Table(
        "",
        ("system", "source", "largest |V|", "s/it", "setting", *QUALITY),
        published + own,
        QUOTED + " Ours: the largest |V| of the store that ran or is predicted to fit, and the"
        " seconds there; workbench limit finds the threshold itself.",
    )
    beside = Table(
        "The predictions at the published sizes",
        TABLE_2_BESIDE,
        table_2_rows(ours[ours["source"] == "predicted"], material.details),
        TABLE_2_NOTE,
    )
    return Block(
        title,
        () if own else (_lacking(material, "probes/paper_table2.py"),),
        None,
        (table, beside) if beside.rows else (table,),
    )


def _reach(cells: pd.DataFrame) -> tuple[str, str]:
    """The largest |V| that ran and every timed |V|'s seconds."""
    ran = cells[cells["status"] == "ok"]
    largest = f"{int(ran['num_visual'].max()):,}" if len(ran) else "none ran"
    timed = cells[cells["time_s"].notna()].sort_values("num_visual")
    seconds = [
        f"{quantity(row['time_s'], 's')} at {row['num_visual']:,}"
        + ("" if row["status"] == "ok" else f" ({row['status']})")
        for row in timed.to_dict("records")
    ]
    return largest, listed(seconds[-3:]) or "n/a"


def _merging(material: Material, rows: pd.DataFrame) -> Block:
    title = "Table 3: merging strategies"
    names = {row[0]: row[1] for row in TABLE_3}
    ours = rows[rows["attention"].isin(names)]
    published = tuple((row[1], "published", row[2], "", "", "", *row[3:]) for row in TABLE_3)
    own = []
    for (source, device, attention, series), cells in _lines(ours):
        top = cells[cells["time_s"].notna()].sort_values("num_visual").tail(1)
        if top.empty:
            continue
        cell = top.iloc[0]
        at = f" at |V| = {cell['num_visual']:,}"
        own.append(
            (
                f"{names[attention]} ({series})",
                place(source, device),
                quantity(cell["params"], "1"),
                quantity(cell["flops"], "FLOP") + at,
                quantity(cell["peak_bytes"], "B"),
                quantity(cell["time_s"], "s"),
                *("" for _ in MERGING),
            )
        )
    table = Table(
        "",
        ("strategy", "source", "parameters", "FLOPs", "peak memory", "s/it", *MERGING),
        published + tuple(own),
        f"Published columns are quoted from {ARXIV}; its parameters are those of the whole model,"
        " ours those of the scope.",
    )
    return Block(
        title, () if own else (_lacking(material, "probes/paper_table3.py"),), None, (table,)
    )


def _lines(rows: pd.DataFrame) -> Any:
    """((source, device, attention, series), its cells), sorted."""
    return rows.groupby(["source", "device", "attention", "series"])


def _lacking(material: Material, probe: str) -> str:
    return (
        f"This store has no such training step of a whole {MODELS[0]};"
        f" {FILL.format(probe, material.path.name)} adds it."
    )
