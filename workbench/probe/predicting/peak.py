"""The predicted peak of one rank: the traced timeline, and model states as they are held."""

from dataclasses import dataclass

from workbench.lvlm.optimizers import OPTIMIZERS, Temporaries
from workbench.lvlm.optimizers.mixed_precision import has_master
from workbench.probe.counting.states import MASTER, Parameter, States, states
from workbench.probe.counting.trace import Trace
from workbench.probe.counting.tracker import Timeline
from workbench.vocabulary.cell import Cell

STATE_KINDS = ("weights", "gradients")
INPUT_GRADIENTS = "input gradients"
THERE = ("inputs", INPUT_GRADIENTS, "workspace")
"""Kinds of blocks that are there when the backward is over, beside model states."""


@dataclass(frozen=True)
class Peak:
    """Bytes at the peak by kind, and what the peak is of."""

    total: int
    by_kind: dict[str, int]
    states: States | None

    def rounded_to(self, allocated: int) -> "Peak":
        """The peak as a card's allocator counts it: with what requests leave unused of chunks."""
        unused = max(0, allocated - self.total)
        kinds = {**self.by_kind, "rounding": unused} if unused else self.by_kind
        return Peak(self.total + unused, kinds, self.states)

    @property
    def dominant(self) -> str:
        """The kind that takes the most."""
        return max(self.by_kind, key=lambda kind: self.by_kind[kind])


def predicted_peak(cell: Cell, traced: Trace) -> Peak:
    """Peak of a cell.

    Without an optimizer it is the timeline's own. With one, the optimizer's states are there all
    the time; under ZeRO, weights and gradients are what ``states`` says instead of whole.
    """
    if not cell.optimizes:
        total, moment = traced.timeline.peak()
        return Peak(total, traced.timeline.by_kind(moment), None)
    rank = states(cell, traced.parameters)
    apart = kinds_apart(cell)
    rest = without_states(cell, traced)
    # Where the host is the device, what offload takes away stays there.
    away, host = rank.on_host and traced.card, rank.host if not traced.card else 0
    optimizer = 0 if away else rank.optimizer - (rank.paged if traced.card else 0)
    running = {
        "weights": rank.weights if "weights" in apart else 0,
        "gradients": rank.gradients if ("gradients" in apart or rank.on_host) and not away else 0,
        "optimizer": optimizer,
        "zero buffers": rank.buffers + host,
    }
    # The last bucket is reduced when the backward is over, and nothing works any more.
    reducing = {**running, **rest.of_kinds(*THERE)}
    reducing["zero buffers"] += rank.reducing
    running = add(running, rest.by_kind(rest.peak()[1]))
    running = add(running, left_by_others(cell, rest))
    stepping = {
        "optimizer": optimizer,
        "zero buffers": rank.kept_buffers + host,
        **_at_step(cell, traced, rank, away),
    }
    kinds = max(running, reducing, stepping, key=lambda kinds: sum(kinds.values()))
    kinds = {kind: size for kind, size in kinds.items() if size}
    return Peak(sum(kinds.values()), kinds, rank)


def kinds_apart(cell: Cell) -> tuple[str, ...]:
    """The kinds of blocks that are held as ``states`` says, not as the trace has them.

    Whole gradients come one by one, as traced, unless an earlier micro-batch left them all.
    """
    if not cell.under_deepspeed:
        return ("gradients",) if cell.accumulate > 1 else ()
    gradients = cell.zero >= 2 or cell.accumulate > 1
    return tuple(kind for kind in STATE_KINDS if gradients or kind != "gradients")


def left_by_others(cell: Cell, timeline: Timeline) -> dict[str, int]:
    """Gradients of inputs that an earlier micro-batch left, to which the last one adds its own.

    Those of weights are model states, which are counted apart.
    """
    return timeline.of_kinds(INPUT_GRADIENTS) if cell.accumulate > 1 else {}


def without_states(cell: Cell, traced: Trace) -> Timeline:
    """The timeline without what ``states`` counts; of gradients, those on their way to others.

    deepspeed copies each into its bucket on a stream of its own, and stage 3 everything in the
    bucket once more before it is reduced (torch.cat in reduce_scatter_coalesced). When that is
    done is not known: here, when the layer's backward is over. Of the second copy only the layer
    at work counts; a whole bucket more may be there for moments.
    """
    apart = kinds_apart(cell)
    timeline = traced.timeline.without(*apart)
    if "gradients" not in apart or cell.world_size == 1:
        return timeline
    copies = 2 if cell.zero == 3 else 1
    return timeline._replace(blocks=[*timeline.blocks, *timeline.passing * copies])


def add(first: dict[str, int], second: dict[str, int]) -> dict[str, int]:
    """Sums by kind."""
    return {kind: first.get(kind, 0) + second.get(kind, 0) for kind in {**first, **second}}


def _at_step(cell: Cell, traced: Trace, rank: States, away: bool) -> dict[str, int]:
    """What is alive while the optimizer steps, beside its states and ZeRO's buffers.

    One process widens one gradient at a time to float32, deepspeed those of a group. ``away``:
    whether gradients have left the device.
    """
    kinds = traced.timeline.of_kinds(*THERE, *STATE_KINDS)
    kinds["working"] = _widened(cell, traced, rank)
    if cell.under_deepspeed:
        kinds["weights"] = rank.weights - rank.persistent
        kinds["gradients"] = 0 if away else rank.reduced
    return kinds


def _widened(cell: Cell, traced: Trace, rank: States) -> int:
    """The most that exists only while the optimizer steps: gradients in float32 and the like."""
    if cell.under_deepspeed:
        return rank.stepping
    return max(step.peak for step in optimizer_steps(cell, traced))


def optimizer_steps(cell: Cell, traced: Trace) -> list[Temporaries]:
    """Temporaries of one process's optimizer for each parameter, in the parameters' order."""
    return [step_of(cell, p, traced.card) for p in traced.parameters if p.stepped_on]


def step_of(cell: Cell, parameter: Parameter, card: bool) -> Temporaries:
    """Those of one parameter: its gradient in float32 first, where it has a master."""
    own = OPTIMIZERS[cell.optimizer].temporaries(parameter.stepped(cell), card)
    if not has_master(cell, parameter.width(cell)):
        return own
    later = (n + 1 if n >= 0 else n - 1 for n in own.requests)
    return Temporaries((MASTER * parameter.numel, *own.sizes), (0, *later, ~0))
