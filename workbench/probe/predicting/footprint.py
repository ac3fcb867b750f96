"""What a cell takes of a device's memory, and whether it fits there.

On a card a cell fits if its allocator finds memory for every request, iteration after iteration;
that is less than allocated bytes against the capacity would say. On a CPU, which has no such
allocator, it is that comparison.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from workbench.lvlm.optimizers import Temporaries
from workbench.probe.counting.allocator import Allocator, allocator_of
from workbench.probe.counting.states import master_sizes, resident_sizes, states
from workbench.probe.counting.trace import Trace, trace
from workbench.probe.counting.tracker import Block, Timeline
from workbench.probe.predicting.caching import HOST
from workbench.probe.predicting.emulation import (
    RankPlan,
    emulated_peak,
    emulated_program,
    parameters_of_rank,
    trace_emulation,
)
from workbench.probe.predicting.peak import (
    INPUT_GRADIENTS,
    Peak,
    kinds_apart,
    left_by_others,
    optimizer_steps,
    predicted_peak,
    without_states,
)
from workbench.probe.predicting.quick_replay import outcome
from workbench.probe.predicting.replay import Outcome, Program, make_program
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.devices import Device
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.fields import Layers
from workbench.vocabulary.pictures import Pictures
from workbench.vocabulary.units import quantity

Replay = Callable[[Program, str, int | None], Outcome]
"""(program, setting, capacity) -> how the replay ends."""


@dataclass(frozen=True)
class Footprint:
    """A cell's memory on one device."""

    peak: Peak
    program: Program
    """What the allocator is asked for."""
    setting: str | None
    """That of a card's allocator; None on a CPU."""
    capacity_bytes: int | None
    """None where nothing bounds it."""
    plan: RankPlan | None = None
    """How a rank is emulated, if one is."""
    replay: Replay = outcome
    """Who replays the program on that device."""

    @cached_property
    def outcome(self) -> Outcome | None:
        """How the requests end at a card's capacity, replayed when somebody asks; None on a CPU,
        where allocated bytes tell.
        """
        if self.setting is None:
            return None
        return self.replay(self.program, self.setting, self.capacity_bytes)

    @property
    def fits(self) -> bool:
        """Whether the cell runs, iteration after iteration."""
        if self.outcome is not None:
            return self.outcome.fits
        return self.capacity_bytes is None or self.peak.total <= self.capacity_bytes

    def on_a_large_card(self, setting: str) -> Outcome | None:
        """How the replay ends where memory has no end; None on a CPU."""
        if self.outcome is None or self.outcome.fits:
            return self.outcome
        return outcome(self.program, setting, None)

    def document(self, setting: str) -> dict[str, Any]:
        """How the allocator fared, JSON-ready; there is one."""
        assert self.outcome is not None, "a card"
        return {"setting": setting, **self.outcome._asdict()}

    def why_not(self) -> str:
        """One sentence for a cell that does not fit."""
        peak, capacity = (quantity(n, "B", 5) for n in (self.peak.total, self.capacity_bytes))
        needs = f"needs {peak}, the device gives {capacity}"
        if self.outcome is None or self.outcome.refused is None:
            return needs
        when = f"iteration {self.outcome.iteration}" if self.outcome.iteration else "the set-up"
        request = f"a request of {quantity(self.outcome.refused, 'B')} in {when} finds no memory"
        if self.capacity_bytes is None or self.peak.total > self.capacity_bytes:
            return f"{needs}; {request}"
        return f"{needs}, but {request}: what is free there is in pieces, held as cached segments"


def footprint(cell: Cell, traced: Trace, allocator: Allocator, capacity: int | None) -> Footprint:
    """The memory of a traced cell where the allocator has ``capacity`` bytes to give."""
    peak = predicted_peak(cell, traced)
    setting = cell.allocator if allocator.card else None
    return Footprint(peak, rank_program(cell, traced), setting, capacity)


def emulated_footprint(
    cell: Cell, allocator: Allocator, capacity: int | None, layers: Layers
) -> Footprint:
    """The memory of a process that emulates a rank of the cell, so many of whose layers run.

    Raises RequestError where it cannot be emulated.
    """
    traced = trace_emulation(cell, layers, allocator)
    peak = emulated_peak(cell, traced)
    peak = replace(peak, states=states(cell, parameters_of_rank(cell, allocator)))
    program = emulated_program(cell, traced)
    setting = cell.allocator if allocator.card else None
    return Footprint(peak, program, setting, capacity, traced.plan)


def trace_unrounded(cell: Cell, allocator: Allocator, pictures: Pictures | None = None) -> Trace:
    """The trace of a cell as far as memory goes, whose blocks have the bytes that are asked for.

    Raises as ``trace`` does.
    """
    exact = replace(allocator, granule=1)
    return trace(cell, exact, pictures=pictures, memory_only=True)


def check_allocator(cell: Cell, target: Device) -> None:
    """Raise RequestError where the cell's allocator setting means nothing on the device."""
    if cell.allocator != "default" and not allocator_of(target).card:
        raise RequestError(
            f"allocator {cell.allocator}: a setting of CUDA's allocator; {target.name} has none"
        )


def setting_of(cell: Cell, allocator: Allocator) -> str:
    """The setting of ``caching.SETTINGS`` under which the cell's process allocates."""
    return cell.allocator if allocator.card else HOST


def rank_program(cell: Cell, traced: Trace) -> Program:
    """What a cell's process, or one rank's, asks of a card's allocator.

    One process has masters and moments by parameter; what deepspeed holds is one buffer a kind.
    """
    if not cell.optimizes:
        return make_program(traced.timeline)
    rank = states(cell, traced.parameters)
    timeline = without_states(cell, traced)
    apart = kinds_apart(cell)
    sizes = [rank.weights] if "weights" in apart else []
    sizes += [rank.gradients] if "gradients" in apart and not rank.on_host else []
    sizes += left_by_others(cell, timeline).values()
    if cell.accumulate > 1:
        timeline = passing_on(timeline)
    if not cell.under_deepspeed:
        sizes += master_sizes(cell, traced.parameters) + resident_sizes(cell, traced.parameters)
        return make_program(timeline, sizes, optimizer_steps(cell, traced))
    sizes += [rank.kept_buffers] if rank.kept_buffers else []
    sizes += [] if rank.on_host else [rank.optimizer]
    # ZeRO's other buffers are made anew in each iteration, and gone when the optimizer steps.
    last = last_moment(timeline)
    passing = Block(rank.buffers - rank.kept_buffers, timeline.start + 1, last + 1)
    reducing = Block(rank.reducing, last, last + 1)
    timeline = timeline._replace(blocks=[*timeline.blocks, passing, reducing])
    return make_program(timeline, sizes, [Temporaries((rank.stepping,), (0, ~0))])


def passing_on(timeline: Timeline) -> Timeline:
    """With gradients of inputs that are gone once they were added to an earlier micro-batch's."""
    end = last_moment(timeline) + 1
    blocks = [
        replace(block, died=end) if block.kind == INPUT_GRADIENTS and block.died is None else block
        for block in timeline.blocks
    ]
    return timeline._replace(blocks=blocks)


def last_moment(timeline: Timeline) -> int:
    """The last moment at which a block is taken or given back."""
    return max(block.died or block.born for block in timeline.blocks)
