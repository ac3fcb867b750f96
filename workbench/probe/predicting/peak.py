"""The predicted peak of one rank: the traced timeline, and model states as they are held."""

from dataclasses import dataclass

from workbench.probe.counting.states import ITEM, MASTER, States, states
from workbench.probe.counting.trace import Trace
from workbench.probe.counting.tracker import Block
from workbench.probe.predicting.reserved import reserved_bytes
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
    if not cell.optimizes:
        total, moment = traced.timeline.peak()
        return Peak(total, traced.timeline.by_kind(moment), None)
    held = states(cell, traced.parameters)
    apart = kinds_apart(cell)
    rest = traced.timeline.without(*apart)
    # Where the host is the device, what offload takes away stays there.
    away, host = held.on_host and traced.card, held.host if not traced.card else 0
    optimizer = 0 if away else held.optimizer
    running = {
        "weights": held.weights if "weights" in apart else 0,
        "gradients": held.gradients if ("gradients" in apart or held.on_host) and not away else 0,
        "optimizer": optimizer,
        "zero buffers": held.buffers + host,
    }
    running = add(running, rest.by_kind(rest.peak()[1]))
    stepping = {
        "optimizer": optimizer,
        "zero buffers": held.kept_buffers + host,
        **_at_step(cell, traced, held, away),
    }
    kinds = max(running, stepping, key=lambda kinds: sum(kinds.values()))
    kinds = {kind: size for kind, size in kinds.items() if size}
    return Peak(sum(kinds.values()), kinds, held)


def kinds_apart(cell: Cell) -> tuple[str, ...]:
    """The kinds of blocks that are held as ``states`` says, not as the trace has them.

    Whole gradients come one by one, as traced, unless an earlier micro-batch left them all.
    """
    if not cell.under_deepspeed:
        return ("gradients",) if cell.accumulate > 1 else ()
    gradients = cell.zero >= 2 or cell.accumulate > 1
    return tuple(kind for kind in STATE_KINDS if gradients or kind != "gradients")


def add(first: dict[str, int], second: dict[str, int]) -> dict[str, int]:
    """Sums by kind."""
    return {kind: first.get(kind, 0) + second.get(kind, 0) for kind in {**first, **second}}


def _at_step(cell: Cell, traced: Trace, held: States, away: bool) -> dict[str, int]:
    """What is alive while the optimizer steps, beside its states and ZeRO's buffers.

    One process widens one gradient at a time to float32, deepspeed those of a group. ``away``:
    whether gradients have left the device.
    """
    kinds = {k: traced.timeline.of_kind(k) for k in ("inputs", "input gradients", "workspace")}
    kinds["working"] = _widened(cell, traced, held)
    if cell.under_deepspeed:
        kinds["weights"] = held.weights - held.persistent
        kinds["gradients"] = 0 if away else held.reduced
        return kinds
    kinds["weights"] = traced.timeline.of_kind("weights")
    kinds["gradients"] = traced.timeline.of_kind("gradients")
    return kinds


def _widened(cell: Cell, traced: Trace, held: States) -> int:
    """Copies of gradients while the optimizer steps."""
    if cell.under_deepspeed:
        return held.stepping
    widened = MASTER // ITEM[cell.dtype] if ITEM[cell.dtype] < MASTER else 0
    return widened * max(b.bytes for b in traced.timeline.blocks if b.kind == "gradients")


def predicted_reserved(cell: Cell, traced: Trace, peak: Peak) -> int:
    """Bytes that a card's caching allocator holds for a cell: its peak and fragmentation.

    One process has masters and moments by parameter; what deepspeed holds is one buffer a kind.
    """
    held = peak.states
    if held is None:
        return reserved_bytes([], traced.timeline.blocks)
    apart = kinds_apart(cell)
    sizes = [held.weights] if "weights" in apart else []
    sizes += [held.gradients] if "gradients" in apart and not held.on_host else []
    sizes += [held.kept_buffers] if held.kept_buffers else []
    if cell.under_deepspeed:
        sizes += [] if held.on_host else [held.optimizer]
    else:
        wide, copies = max(MASTER, ITEM[cell.dtype]), 2 if ITEM[cell.dtype] >= MASTER else 3
        trained = [p.numel for p in traced.parameters if p.trained]
        sizes += [wide * numel for numel in trained] * copies
    blocks = traced.timeline.without(*apart).blocks
    step = max((b.died or b.born for b in blocks), default=0) + 1
    passing = [Block(held.buffers - held.kept_buffers, 0, step)]
    stepping = Block(_widened(cell, traced, held), step, step + 1)
    return reserved_bytes(sizes, [*filter(lambda b: b.bytes, passing), *blocks, stepping])
