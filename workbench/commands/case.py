"""The prediction of a report's case: the one part of a report that needs torch."""

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

from workbench.report.case import Case, CaseAnswer
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError, Unsupported

if TYPE_CHECKING:
    from workbench.vocabulary.record import Record


def answer_case(case: Case) -> list[CaseAnswer]:
    """Every system of the case under its fastest kernel; RequestError for a wrong name."""
    return [_answer(fastest(cells, case.device), case.device) for cells in case.systems()]


def fastest(cells: Sequence[Cell], device: str) -> "Record":
    """The prediction of the cell that fits and takes the fewest seconds."""
    from workbench.interface import predict

    return min((predict(cell, device) for cell in cells), key=_order)


def _order(record: "Record") -> tuple[bool, bool, float]:
    """What fits before what does not, what runs before what cannot; then the fastest."""
    seconds = record.metrics.get("time_s")
    return record.status != "ok", record.status != "oom", inf if seconds is None else seconds


def _answer(record: "Record", device: str) -> CaseAnswer:
    """A prediction with the largest |V| of its cell."""
    from workbench.interface import limit

    largest = None
    if record.status in ("ok", "oom"):
        try:
            largest = limit(record.cell, device).max_visual
        except (RequestError, Unsupported):
            largest = None
    seconds, peak = record.metrics.get("time_s"), record.metrics.get("peak_bytes")
    return CaseAnswer(
        record.cell,
        record.status.value,
        None if seconds is None else float(seconds),
        None if peak is None else int(peak),
        largest,
        tuple(record.flags),
    )
