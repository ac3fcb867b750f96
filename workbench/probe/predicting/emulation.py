"""One rank of a ZeRO-3 run, emulated on one device: its plan, and what it takes of the memory.

The plan is the shard and the ballast, from the prediction of the whole rank: everything that the
rank holds is there in bytes. Its own peak, and how the allocator fares, follow from a trace of
what the emulation really runs.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from workbench.lvlm.emulate import Emulation, emulated_rank
from workbench.lvlm.optimizers import Temporaries
from workbench.lvlm.places import kinds_of, repeated_layers
from workbench.probe.counting.allocator import HOST, Allocator
from workbench.probe.counting.states import (
    ITEM,
    MASTER,
    Parameter,
    states,
    trained_groups,
)
from workbench.probe.counting.trace import Trace, saved_bytes, trace
from workbench.probe.counting.tracker import Timeline
from workbench.probe.predicting.peak import Peak, step_of
from workbench.probe.predicting.replay import Program, make_program
from workbench.probe.predicting.traces import trace_of
from workbench.vocabulary.agreement import check_states
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import Faults, RequestError
from workbench.vocabulary.fields import Layers
from workbench.vocabulary.record import Record

UTILISATION = ("mfu", "mfu_causal", "mfu_at_clock", "busy_share")


@dataclass(frozen=True)
class RankPlan:
    """An emulation and how it stands to the whole rank."""

    emulation: Emulation
    total_layers: int
    resident_layers: int
    """Layers whose weights are there; the others use them too."""
    excess_bytes: int
    """What it holds beyond the prediction of the rank: resident weights over ZeRO's buffers."""
    optimizer_bytes: int
    world_size: int

    @property
    def whole(self) -> bool:
        """Whether every layer runs."""
        return self.emulation.layers == self.total_layers

    @property
    def flag(self) -> str:
        """What a record has to say of it."""
        ballast = f"{self.emulation.ballast_bytes:,} bytes of ballast"
        excess = f", {self.excess_bytes:,} bytes too many" if self.excess_bytes else ""
        return (
            f"emulated: one ZeRO-3 rank of {self.world_size}; {self.emulation.layers} of "
            f"{self.total_layers} layers run, over the weights of {self.resident_layers}, beside "
            f"{ballast}{excess}; nothing is communicated"
        )


def left_out(plan: RankPlan, metrics: Collection[str]) -> dict[str, str]:
    """Metrics that an emulation does not have, and why: of its states, and perhaps of time.

    Ballast has no kind. Where layers are left out, no time is that of the cell's iteration.
    """
    ballast = "an emulated rank holds ballast in place of most of them"
    reasons = dict.fromkeys(("weight_bytes", "gradient_bytes"), ballast)
    if not plan.whole:
        why = f"{plan.emulation.layers} of {plan.total_layers} layers ran"
        timed = (name for name in metrics if name.endswith(("_s", "_j")))
        shares = (name for name in UTILISATION if name in metrics)
        reasons |= dict.fromkeys((*timed, *shares), why)
    return reasons


def check_emulation(cell: Cell, layers: Layers) -> int:
    """The number of layers that run; RequestError for what cannot be emulated."""
    faults = Faults()
    with faults:
        check_states(cell)
    if cell.zero != 3 or cell.scope != "decoder":
        faults.add(
            f"emulate {layers}: emulates a rank of scope decoder under --zero 3, not of scope "
            f"{cell.scope} under --zero {cell.zero}"
        )
    for name, wrong in (
        ("accumulate", cell.accumulate > 1),
        ("offload_optimizer", cell.offload_optimizer),
        ("weights", cell.weights is not None),
        ("lora", cell.lora is not None),
    ):
        if wrong:
            faults.add(f"{name}: an emulated rank cannot have it; leave it out")
    faults.raise_all()
    stretch = repeated_layers(cell)
    total = stretch.total
    if layers == "all":
        return total
    fewest = total - (stretch.count - 1) * stretch.unit
    if not fewest <= layers <= total or (total - layers) % stretch.unit:
        raise RequestError(
            f"emulate {layers}: {cell.model} has {total} layers, alike every {stretch.unit}; give "
            f"'all', or {fewest} to {total} in steps of {stretch.unit}"
        )
    return layers


def emulated_layers(record: Record) -> Layers | None:
    """How many layers ran where a record is of an emulated rank, as its flag says; else None."""
    for flag in record.flags:
        if flag.startswith("emulated:"):
            match = re.search(r"(\d+) of (\d+) layers run", flag)
            if match is not None:
                return "all" if match[1] == match[2] else int(match[1])
    return None


@dataclass(frozen=True)
class EmulatedTrace:
    """A planned emulation and one iteration of what it really runs."""

    plan: RankPlan
    timeline: Timeline


def plan_rank(cell: Cell, layers: Layers, allocator: Allocator = HOST) -> RankPlan:
    """How one rank of the cell is emulated; raises as ``check_emulation`` and ``trace`` do."""
    return trace_emulation(cell, layers, allocator).plan


def trace_emulation(cell: Cell, layers: Layers, allocator: Allocator = HOST) -> EmulatedTrace:
    """The plan of an emulated rank and its trace; raises as ``check_emulation`` and ``trace`` do.

    Its ballast is what the rank holds by the prediction, less what is there anyway.
    """
    run = check_emulation(cell, layers)
    stretch = repeated_layers(cell)
    total, unit = stretch.total, stretch.unit
    parameters = parameters_of_rank(cell, allocator)
    whole = states(cell, parameters)
    item, world = ITEM[cell.dtype], cell.world_size
    shard = sum(-(-n // world) for group in trained_groups(parameters) for n in group)
    optimizer = (3 if item < MASTER else 2) * max(MASTER, item) * shard
    bare = Emulation(run, shard)
    traced = _traced(cell, bare, allocator)
    resident = 2 * traced.timeline.of_kind("weights")
    beside = 0
    if run < total:
        more = _traced(cell, replace(bare, layers=run + unit), allocator, forward_only=True)
        beside = (saved_bytes(more) - saved_bytes(traced)) * (total - run) // unit
    free = whole.total - resident - 2 * item * shard - optimizer
    plan = RankPlan(
        emulation=replace(bare, ballast_bytes=max(0, free + beside)),
        total_layers=total,
        resident_layers=len(set(kinds_of(cell))),
        excess_bytes=max(0, -(free + beside)),
        optimizer_bytes=optimizer,
        world_size=world,
    )
    size = allocator.rounded(plan.emulation.ballast_bytes)
    return EmulatedTrace(plan, _with_ballast(traced.timeline, size))


def parameters_of_rank(cell: Cell, allocator: Allocator) -> tuple[Parameter, ...]:
    """Every parameter of the cell, whose |V| changes none of them, nor how it is shared."""
    return trace_of(
        cell.replace(num_visual=0, num_text=1, ulysses=1, ring=1), allocator
    ).parameters


def _with_ballast(timeline: Timeline, size: int) -> Timeline:
    """The timeline of an emulation that was traced without ballast, with so many bytes of it."""
    (empty,) = (b for b in timeline.blocks if b.kind == "ballast" and not b.bytes)
    blocks = [replace(b, bytes=size) if b is empty else b for b in timeline.blocks]
    return timeline._replace(blocks=blocks)


def emulated_peak(cell: Cell, traced: EmulatedTrace) -> Peak:
    """The peak of the emulation itself; ``ballast`` stands for the rest of the rank."""
    timeline, plan = traced.timeline, traced.plan
    running = timeline.by_kind(timeline.peak()[1])
    there = ("weights", "inputs", "ballast", "input gradients", "workspace")
    stepping = {kind: timeline.of_kind(kind) for kind in there}
    stepping["working"] = _step(cell, plan).peak
    kinds = max(running, stepping, key=lambda kinds: sum(kinds.values()))
    kinds = {**kinds, "optimizer": plan.optimizer_bytes}
    return Peak(sum(kinds.values()), {k: size for k, size in kinds.items() if size}, None)


def emulated_program(cell: Cell, traced: EmulatedTrace) -> Program:
    """The requests of the emulation, for a replay of a card's allocator."""
    plan = traced.plan
    wide = max(MASTER, ITEM[cell.dtype]) * plan.emulation.shard
    copies = plan.optimizer_bytes // wide
    return make_program(traced.timeline, [wide] * copies, [_step(cell, plan)])


def _step(cell: Cell, plan: RankPlan) -> Temporaries:
    """What the optimizer takes for the shard."""
    return step_of(cell, Parameter("decoder", plan.emulation.shard), card=False)


def _traced(
    cell: Cell, emulation: Emulation, allocator: Allocator, forward_only: bool = False
) -> Trace:
    return trace(
        cell,
        allocator,
        compose=False,
        make=lambda device: emulated_rank(cell, emulation, device),
        memory_only=True,
        forward_only=forward_only,
    )
