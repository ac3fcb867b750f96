"""The OOM threshold, predicted: the largest |V| that fits, as a bracket no wider than 1 %."""

from dataclasses import dataclass, field
from typing import Any

from workbench.lvlm.places import visual_unit
from workbench.probe.counting.allocator import Allocator, allocator_of
from workbench.probe.predicting.capacity import fixed_capacity
from workbench.probe.predicting.emulation import check_emulation
from workbench.probe.predicting.facts import model_flags
from workbench.probe.predicting.family import Family
from workbench.probe.predicting.footprint import check_allocator
from workbench.probe.predicting.threshold import find_threshold
from workbench.vocabulary.agreement import check_states
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.devices import device
from workbench.vocabulary.fields import MAX_TOKENS, Layers

START = 65_536
"""The largest |V| of the first traces."""
WHOLE_RANK = (
    "whole_rank: as deepspeed lays it out; a process that emulates it (--emulate N) holds ballast "
    "in few large pieces instead, and may run out earlier or later (docs/method.md)"
)


@dataclass(frozen=True)
class Limit:
    """``max_visual`` fits and ``fails_at`` does not; None where even nothing fits, or all does."""

    cell: Cell
    source: str
    device: str
    max_visual: int | None
    fails_at: int | None
    capacity_bytes: int
    stopped_by: str
    flags: list[str] = field(default_factory=list)
    """What a reader should know, as a record's flags."""

    def document(self) -> dict[str, Any]:
        """The JSON document of the command line's contract."""
        fields = {k: v for k, v in vars(self).items() if k != "cell"}
        return {"cell": self.cell.document(), "key": self.cell.key, **fields}


def predicted_limit(cell: Cell, device_name: str, emulate: Layers | None = None) -> Limit:
    """The threshold of a cell, whose own |V| is not read.

    With ``emulate`` that of a process which emulates a rank of the cell, so many of whose layers
    run. Raises RequestError for a device without a capacity, and as ``predict`` does.
    """
    target = device(device_name)
    check_states(cell)
    if emulate is not None:
        check_emulation(cell, emulate)
    check_allocator(cell, target)
    capacity = fixed_capacity(cell, target)
    bracket = predicted_bracket(cell, capacity, allocator_of(target), emulate)
    return Limit(cell=cell, source="predicted", device=target.name, **vars(bracket))


@dataclass(frozen=True)
class Bracket:
    """The ends of a threshold and what lies behind them, as ``Limit`` has them."""

    max_visual: int | None
    fails_at: int | None
    capacity_bytes: int
    stopped_by: str
    flags: list[str]


def predicted_bracket(
    cell: Cell, capacity: int, allocator: Allocator, emulate: Layers | None = None
) -> Bracket:
    """The threshold where the allocator has ``capacity`` bytes to give."""
    unit = visual_unit(cell)
    family = Family(
        lambda count: cell.replace(num_visual=count * unit),
        allocator,
        capacity,
        emulate,
        empty=cell.num_text == 0,
    )
    fits, fails = find_threshold(family, START // unit, MAX_TOKENS // unit)
    return Bracket(
        max_visual=fits and fits * unit,
        fails_at=None if fails is None else fails * unit,
        capacity_bytes=capacity,
        stopped_by=f"nothing up to {MAX_TOKENS // unit * unit:,} tokens"
        if fails is None
        else family.footprint(fails).peak.dominant,
        flags=[
            *model_flags(cell),
            *([WHOLE_RANK] if cell.zero == 3 and emulate is None and allocator.card else []),
            *([] if fails is None else family.flags(fails)),
        ],
    )
