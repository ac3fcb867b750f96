"""Traces of cells that were predicted, kept for the next cell that has the same.

Two caches outlive a prediction. This one, in a process that predicts, holds the last ``KEPT``
traces until the process ends or ``forget`` is called. The planner's (``Predictors`` in
``workbench/dashboard/predictor.py``) holds answers, whole documents by question, until the
dashboard ends. What a search for a threshold traces it holds itself, as long as it lasts.
"""

from functools import lru_cache

from workbench.lvlm.models import MODELS
from workbench.probe.counting.allocator import Allocator
from workbench.probe.counting.trace import Trace, trace
from workbench.vocabulary.agreement import SUB_GROUP_SIZE
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.pictures import Pictures

KEPT = 16
"""Traces; that of a large model takes a few megabytes."""
UNSHARED = {
    "zero": 0,
    "world_size": 1,
    "offload_optimizer": False,
    "sub_group_size": SUB_GROUP_SIZE,
    "memory_cap": None,
    "allocator": "default",
}
"""Fields that say who holds which states, and change nothing in a trace."""


def trace_of(cell: Cell, allocator: Allocator, pictures: Pictures | None = None) -> Trace:
    """The trace of a cell, by component and region; raises as ``trace`` does.

    One is kept for cells that differ only in who holds which states. None is of what files say,
    which may be others by then, or of ranks that share a sequence.
    """
    of_files = pictures is not None and pictures.has_files
    if of_files or cell.sharing > 1 or cell.model not in MODELS:
        return trace(cell, allocator, regions=True, pictures=pictures)
    return _cached_trace(cell.replace(**UNSHARED), allocator, pictures)


def forget() -> None:
    """Drop the traces that are kept: the next prediction takes what a first one takes."""
    _cached_trace.cache_clear()


@lru_cache(maxsize=KEPT)
def _cached_trace(cell: Cell, allocator: Allocator, pictures: Pictures | None) -> Trace:
    def plain(own: Cell) -> Trace:
        return _cached_trace(own, allocator, pictures)

    return trace(cell, allocator, regions=True, pictures=pictures, plain=plain)
