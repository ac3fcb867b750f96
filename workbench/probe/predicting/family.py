"""Cells that differ in one number, such as |V|, and what each takes of one device's memory."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from workbench.probe.counting.allocator import Allocator
from workbench.probe.counting.trace import Trace
from workbench.probe.predicting.footprint import (
    Footprint,
    emulated_footprint,
    footprint,
    trace_unrounded,
)
from workbench.probe.predicting.quick_replay import outcome
from workbench.probe.predicting.replay import Outcome, Program
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.fields import Layers
from workbench.vocabulary.pictures import Pictures


@dataclass
class Family:
    """Cells that differ in one number, on one device; each is traced once at most."""

    cell: Callable[[int], Cell]
    allocator: Allocator
    capacity: int
    emulate: Layers | None = None
    empty: bool = False
    """Whether there is no cell for 0, which then needs nothing."""
    pictures: Callable[[int], Pictures | None] = lambda _: None
    """What each shows at scope lvlm, where that is of a size of its own."""
    _traces: dict[int, Trace] = field(default_factory=dict)
    _footprints: dict[int, Footprint] = field(default_factory=dict)
    _replayed: list[tuple[Program, Outcome]] = field(default_factory=list)

    def trace(self, number: int) -> Trace | None:
        """One member's trace, whose blocks are not rounded; None where ranks are emulated."""
        if self.emulate is not None:
            return None
        if number not in self._traces:
            self._traces[number] = trace_unrounded(
                self.cell(number), self.allocator, self.pictures(number)
            )
        return self._traces[number]

    def footprint(self, number: int) -> Footprint:
        """The memory of one member, traced; raises as ``predict`` does."""
        if number not in self._footprints:
            cell, traced = self.cell(number), self.trace(number)
            if traced is not None:
                self.add(number, traced)
            elif self.emulate is not None:
                memory = emulated_footprint(cell, self.allocator, self.capacity, self.emulate)
                self._footprints[number] = replace(memory, replay=self.replay)
        return self._footprints[number]

    def add(self, number: int, traced: Trace) -> None:
        """Take the trace for that member's, whose blocks are not rounded yet."""
        rounded = traced.rounded(self.allocator)
        memory = footprint(self.cell(number), rounded, self.allocator, self.capacity)
        self._footprints[number] = replace(memory, replay=self.replay)

    def replay(self, program: Program, setting: str, capacity: int | None) -> Outcome:
        """How the replay of a member's program ends; the same requests are replayed once."""
        granule = self.allocator.granule
        program = replace(program, sizes=[-(-size // granule) * granule for size in program.sizes])
        for earlier, result in self._replayed:
            if earlier == program:
                return result
        result = outcome(program, setting, capacity)
        self._replayed.append((program, result))
        return result

    def fits(self, number: int) -> bool:
        """Whether one member fits, by a trace of its own."""
        return (number == 0 and self.empty) or self.footprint(number).fits

    def flags(self, fails: int) -> list[str]:
        """What an answer has to say beside its bracket."""
        memory = self.footprint(fails)
        flags = [] if memory.plan is None else [memory.plan.flag]
        if memory.peak.total <= self.capacity:
            flags.append(f"fragmented: |V| = {self.cell(fails).num_visual:,} {memory.why_not()}")
        return flags
