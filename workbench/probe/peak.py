"""The predicted peak of one rank: the traced timeline, and model states as they are held."""

from dataclasses import dataclass

from workbench.probe.states import ITEM, States, has_optimizer, states
from workbench.probe.trace import Trace
from workbench.spec import Cell

STATE_KINDS = ("weights", "gradients")


@dataclass(frozen=True)
class Peak:
    """Bytes at the peak by kind, and what the peak is of."""

    total: int
    by_kind: dict[str, int]
    states: States | None

    @property
    def dominant(self) -> str:
        """The kind that takes the most."""
        return max(self.by_kind, key=lambda kind: self.by_kind[kind])


def predicted_peak(cell: Cell, traced: Trace) -> Peak:
    """Peak of a cell.

    Without an optimizer it is the timeline's own. With one, the optimizer's states are there all
    the time; under ZeRO, weights and gradients are what ``states`` says instead of whole.
    """
    if not has_optimizer(cell):
        total, moment = traced.timeline.peak()
        return Peak(total, traced.timeline.by_kind(moment), None)
    held = states(cell, traced.params)
    if cell.zero == 0:
        total, moment = traced.timeline.peak()
        kinds = traced.timeline.by_kind(moment)
        stepping = _at_step(cell, traced)
        if sum(stepping.values()) > total:
            kinds, total = stepping, sum(stepping.values())
        return Peak(total + held.optimizer, {**kinds, "optimizer": held.optimizer}, held)
    rest = traced.timeline.without(*STATE_KINDS)
    total, moment = rest.peak()
    kinds = {
        "weights": held.weights,
        "gradients": held.gradients,
        "optimizer": held.optimizer,
        "zero buffers": held.buffers,
        **rest.by_kind(moment),
    }
    return Peak(total + held.total, kinds, held)


def _at_step(cell: Cell, traced: Trace) -> dict[str, int]:
    """What is alive while the optimizer steps: one gradient at a time is widened to float32."""
    kinds = {kind: traced.timeline.of_kind(kind) for kind in ("weights", "inputs", "gradients")}
    kinds["input gradients"] = traced.timeline.of_kind("input gradients")
    widened = 4 // ITEM[cell.dtype] if ITEM[cell.dtype] < 4 else 0
    largest = max(b.bytes for b in traced.timeline.blocks if b.kind == "weights")
    return {**kinds, "working": widened * largest}
