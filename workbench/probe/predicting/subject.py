"""A traced cell on a device, of which every contribution to its prediction is computed."""

from dataclasses import dataclass
from functools import cached_property

from workbench.probe.counting.allocator import Allocator, allocator_of
from workbench.probe.counting.trace import Trace
from workbench.probe.predicting.capacity import capacity_of
from workbench.probe.predicting.footprint import Footprint, emulated_footprint, footprint
from workbench.probe.predicting.peak import Peak
from workbench.probe.predicting.replay import Outcome
from workbench.probe.predicting.roofline import Rates, Times, Work, predict_times, rates, works
from workbench.vocabulary.calibration import Calibration
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.devices import Device
from workbench.vocabulary.fields import Layers
from workbench.vocabulary.pictures import Pictures


@dataclass(frozen=True)
class Subject:
    """What is predicted. What several contributions need is computed once."""

    cell: Cell
    target: Device
    traced: Trace
    calibration: Calibration | None = None
    calibration_file: str | None = None
    """The file of a calibration that is the request's own, as a record keeps it."""
    pictures: Pictures | None = None
    emulate: Layers | None = None
    """With it, the memory is that of one process that emulates a rank, so many of whose layers
    run."""

    @cached_property
    def allocator(self) -> Allocator:
        """How the device hands out memory."""
        return allocator_of(self.target)

    @cached_property
    def capacity_bytes(self) -> int | None:
        """What the cell may allocate; None where nothing bounds it."""
        return capacity_of(self.cell, self.target)

    @cached_property
    def memory(self) -> Footprint:
        """What the cell takes of the device's memory, and whether it fits."""
        if self.emulate is not None:
            return emulated_footprint(self.cell, self.allocator, self.capacity_bytes, self.emulate)
        return footprint(self.cell, self.traced, self.allocator, self.capacity_bytes)

    @cached_property
    def roomy(self) -> Outcome | None:
        """How its allocator fares on a card that is large enough; None on a CPU.

        A cell that does not fit keeps its metrics: those of such a card.
        """
        return self.memory.on_a_large_card(self.cell.allocator)

    @cached_property
    def peak(self) -> Peak:
        """The peak of memory as the device's allocator counts it."""
        peak = self.memory.peak
        return peak if self.roomy is None else peak.rounded_to(self.roomy.allocated_bytes)

    @cached_property
    def work(self) -> list[Work]:
        """The operators that do something."""
        return works(self.cell, self.traced)

    @cached_property
    def rates(self) -> tuple[Rates | None, list[str]]:
        """What the device does in a second, and the flags that a time by it needs."""
        return rates(self.cell, self.work, self.target, self.calibration)

    @cached_property
    def times(self) -> Times | None:
        """Seconds of the operators and the optimizer; None where a rate is missing."""
        speed, _ = self.rates
        return None if speed is None else predict_times(self.work, speed, self.peak.states)
