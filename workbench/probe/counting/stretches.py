"""What repeats in a cell's decoder, and the moments at which a trace meets its units."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from workbench.lvlm.kinds import Stretch, shortened, stretches_of
from workbench.lvlm.places import kinds_of
from workbench.lvlm.workload import Workload
from workbench.probe.counting.compose import LAST, MIDDLE, UNITS, Boundaries
from workbench.probe.counting.tracker import Tracker
from workbench.vocabulary.cell import Cell


def plan_of(cell: Cell) -> tuple[Stretch, ...]:
    """What repeats in a cell's decoder, of which three units are traced with all that does not.

    Nothing where that is no fewer layers than there are.
    """
    if cell.scope == "layer":
        return ()
    return stretches_of(kinds_of(cell), grouped_by(cell), UNITS)


def grouped_by(cell: Cell) -> int:
    """Layers under one checkpoint."""
    return (cell.checkpoint_every or 1) if cell.checkpoint else 1


def middles_of(plan: tuple[Stretch, ...]) -> list[tuple[int, int]]:
    """Where the second of the three units of each stretch begins and ends among traced layers."""
    if not plan:
        return []
    middles = shortened(plan, plan[0].total, UNITS)
    starts = [middles.index(stretch.start) + stretch.unit for stretch in plan]
    return [(start, start + s.unit) for start, s in zip(starts, plan, strict=True)]


def units(workload: Workload, middle: tuple[int, int]) -> list[list[nn.Module]]:
    """The traced layers (or checkpointed groups) before a stretch's second unit, in it, after."""
    layers: Any = workload.module.get_submodule("layers")
    modules = list(layers)
    first, second = (index // grouped_by(workload.cell) for index in middle)
    return [modules[:first], modules[first:second], modules[second:]]


class UnitMarks:
    """Boundaries as they are met."""

    def __init__(self) -> None:
        self.forward = [-1] * UNITS
        self.backward = [-1] * UNITS
        self.head = -1

    def frozen(self) -> Boundaries:
        met = self.backward if self.backward[MIDDLE] >= 0 else []
        return Boundaries(self.forward, self.head, met)


@contextmanager
def boundaries(
    workload: Workload, tracker: Tracker, plan: tuple[Stretch, ...]
) -> Iterator[list[UnitMarks]]:
    """Note when each unit's forward and backward begin, for every stretch."""
    marks, handles = [UnitMarks() for _ in plan], []
    for mark, middle in zip(marks, middles_of(plan), strict=True):
        for number, unit in enumerate(units(workload, middle)):

            def enter(_: nn.Module, __: Any, mark: UnitMarks = mark, number: int = number) -> None:
                mark.forward[number] = tracker.tick + 1

            def leave(
                _: nn.Module, __: Any, output: Any, mark: UnitMarks = mark, number: int = number
            ) -> None:
                if number == LAST:
                    mark.head = tracker.tick + 1
                for tensor in output:
                    if isinstance(tensor, Tensor) and tensor.requires_grad:
                        tensor.register_hook(lambda _: arrive(mark, number))

            handles.append(unit[0].register_forward_pre_hook(enter))
            handles.append(unit[-1].register_forward_hook(leave))

    def arrive(mark: UnitMarks, number: int) -> None:
        if mark.backward[number] < 0:
            mark.backward[number] = tracker.tick + 1

    try:
        yield marks
    finally:
        for handle in handles:
            handle.remove()
