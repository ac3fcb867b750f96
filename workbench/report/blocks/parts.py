"""Where the time goes: by part of the model, from stored traces and from predicted operators."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from workbench.figures import in_order, quantity
from workbench.report.material import Material, Subject
from workbench.report.page import Block, Table
from workbench.report.sentences import at_place, place, places
from workbench.report.view import identities, seconds_by_part

TITLE = "Where the time goes"
MISSING = (
    "No cell here has a stored trace or predicted operators; workbench sweep --trace DIR stores"
    " where the time of each measured cell goes."
)


class Shares(NamedTuple):
    """Seconds by part of one cell."""

    seconds: Mapping[str, float]

    @property
    def total(self) -> float:
        """Seconds of all parts."""
        return math.fsum(self.seconds.values())


def parts_block(material: Material, subject: Subject) -> Block:
    """Per place, the parts of each system at the largest |V| at which any of it is known."""
    tables: list[Table] = []
    sentences: list[str] = []
    for source, device in places(subject.rows):
        rows = at_place(subject.rows, source, device)
        found: dict[str, tuple[int, Shares]] = {}
        rows = rows.sort_values("num_visual")
        records = material.details.some(identities(rows))
        for identity, series in zip(identities(rows), rows["series"], strict=True):
            shares = Shares(seconds_by_part(records[identity]))
            if shares.total > 0:
                found[series] = records[identity].cell.num_visual, shares
        if found:
            name = place(source, device)
            tables.append(_table([n for n in in_order(rows) if n in found], found, source, name))
            sentences += [_most(n, *found[n], name) for n in in_order(rows) if n in found]
    return Block(TITLE, tuple(sentences) or (MISSING,), None, tuple(tables))


def _most(series: str, num_visual: int, shares: Shares, where: str) -> str:
    part = max(shares.seconds, key=lambda name: shares.seconds[name])
    share = shares.seconds[part] / shares.total
    return f"{series} at |V| = {num_visual:,}: {share:.0%} of the time goes to {part} ({where})."


def _table(order: Sequence[str], found: Mapping[str, tuple[int, Shares]], source: str,
           name: str) -> Table:  # fmt: skip
    total: dict[str, float] = {}
    for _, shares in found.values():
        for part, seconds in shares.seconds.items():
            total[part] = total.get(part, 0.0) + seconds
    parts = sorted(total, key=lambda part: -total[part])
    rows = [("at |V|", *(f"{found[s][0]:,}" for s in order))]
    rows += [(part, *(_share(found[s][1], part) for s in order)) for part in parts]
    rows.append(("all parts", *(quantity(found[s][1].total, "s") for s in order)))
    how = (
        "Of one iteration under the profiler, which runs slower than an untraced one."
        if source == "measured"
        else "Of the roofline's seconds for each operator; nothing ran."
    )
    return Table(f"Time by part, {name}", ("part", *order), tuple(rows), how)


def _share(shares: Shares, part: str) -> str:
    seconds = shares.seconds.get(part)
    if seconds is None:
        return ""
    return f"{quantity(seconds, 's')} ({seconds / shares.total:.0%})"
