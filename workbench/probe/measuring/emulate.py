"""The plan of an emulated ZeRO-3 rank: its shard and its ballast, from the prediction of the rank.

Everything that the rank holds by the prediction is there in bytes; ``emulated_peak`` is what the
emulation itself should need, which a test holds against its measured peak.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from math import lcm
from typing import Literal

from workbench.errors import RequestError
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.emulate import Emulation, emulated_rank
from workbench.lvlm.kinds import layer_kinds, period
from workbench.lvlm.models import resolve
from workbench.probe.counting.allocator import HOST, Allocator
from workbench.probe.counting.states import ITEM, MASTER, check_states, states, trained_groups
from workbench.probe.counting.trace import Trace, trace
from workbench.probe.predicting.predict import saved_bytes
from workbench.spec import Cell

Layers = int | Literal["all"]
Metrics = dict[str, int | float | None]
Samples = dict[str, list[float]]
UTILISATION = ("mfu", "mfu_causal", "mfu_at_clock", "busy_share")
STEP_COPIES = 2
"""Temporaries of the shard's size in a step of torch.optim.AdamW, one parameter at a time."""


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
        held = f"{self.emulation.ballast_bytes:,} bytes of ballast"
        excess = f", {self.excess_bytes:,} bytes too many" if self.excess_bytes else ""
        return (
            f"emulated: one ZeRO-3 rank of {self.world_size}; {self.emulation.layers} of "
            f"{self.total_layers} layers run, over the weights of {self.resident_layers}, beside "
            f"{held}{excess}; nothing is communicated"
        )


def check_emulation(cell: Cell, layers: Layers) -> int:
    """The number of layers that run; RequestError for what cannot be emulated."""
    check_states(cell)
    if cell.zero != 3 or cell.scope != "decoder":
        raise RequestError(
            f"emulate {layers}: emulates a rank of scope decoder under --zero 3, not of scope "
            f"{cell.scope} under --zero {cell.zero}"
        )
    for name, wrong in (
        ("accumulate", cell.accumulate > 1),
        ("offload_optimizer", cell.offload_optimizer),
        ("weights", cell.weights is not None),
    ):
        if wrong:
            raise RequestError(f"{name}: an emulated rank cannot have it; leave it out")
    total, unit = _layers(cell)
    if layers == "all":
        return total
    if layers > total or layers % unit or (total - layers) % unit:
        raise RequestError(
            f"emulate {layers}: {cell.model} has {total} layers, alike every {unit}; give 'all' "
            f"or a multiple of {unit} that leaves one"
        )
    return layers


def _layers(cell: Cell) -> tuple[int, int]:
    """Layers of the decoder, and after how many they repeat."""
    model = resolve(cell.model)
    grouped = (cell.checkpoint_every or 1) if cell.checkpoint else 1
    return model.config.num_hidden_layers, lcm(period(_kinds(cell)), grouped)


def _kinds(cell: Cell) -> tuple[Hashable, ...]:
    return layer_kinds(resolve(cell.model), SYSTEMS[cell.attention])


def plan_rank(cell: Cell, layers: Layers, allocator: Allocator = HOST) -> RankPlan:
    """How one rank of the cell is emulated; raises as ``check_emulation`` and ``trace`` do."""
    run = check_emulation(cell, layers)
    total, unit = _layers(cell)
    parameters = trace(cell, allocator).parameters
    held = states(cell, parameters)
    item, world = ITEM[cell.dtype], cell.world_size
    shard = sum(-(-n // world) for group in trained_groups(parameters) for n in group)
    optimizer = (3 if item < MASTER else 2) * max(MASTER, item) * shard
    bare = Emulation(run, shard)
    traced = _traced(cell, bare, allocator)
    resident = 2 * traced.timeline.of_kind("weights")
    beside = 0
    if run < total:
        more = _traced(cell, replace(bare, layers=run + unit), allocator)
        beside = (saved_bytes(more) - saved_bytes(traced)) * (total - run) // unit
    free = held.total - resident - 2 * item * shard - optimizer
    return RankPlan(
        emulation=replace(bare, ballast_bytes=max(0, free + beside)),
        total_layers=total,
        resident_layers=len(set(_kinds(cell)[:run])),
        excess_bytes=max(0, -(free + beside)),
        optimizer_bytes=optimizer,
        world_size=world,
    )


def emulated_peak(cell: Cell, plan: RankPlan, allocator: Allocator = HOST) -> int:
    """The predicted peak of the emulation itself, in bytes."""
    timeline = _traced(cell, plan.emulation, allocator).timeline
    wider = max(MASTER, ITEM[cell.dtype])
    # torch's AdamW takes a root and a quotient of its second moment, beside the widened gradient.
    copies = STEP_COPIES + (ITEM[cell.dtype] < MASTER)
    held = sum(timeline.of_kind(kind) for kind in ("weights", "inputs", "input gradients"))
    stepping = held + copies * wider * plan.emulation.shard
    return max(timeline.peak()[0], stepping) + plan.optimizer_bytes


def adapted(
    metrics: Metrics, samples: Samples, plan: RankPlan
) -> tuple[Metrics, Samples, list[str]]:
    """Metrics and samples of an emulation as a record may state them, and why some are None.

    Ballast has no kind. Where layers are left out, no time is that of the cell's iteration.
    """
    ballast = "an emulated rank holds ballast in place of most of them"
    left_out = dict.fromkeys(("weight_bytes", "gradient_bytes"), ballast)
    if not plan.whole:
        why = f"{plan.emulation.layers} of {plan.total_layers} layers ran"
        timed = (name for name in metrics if name.endswith(("_s", "_j")))
        shares = (name for name in UTILISATION if name in metrics)
        left_out |= dict.fromkeys((*timed, *shares), why)
        samples = {f"part_of_{name}": values for name, values in samples.items()}
    flags = [f"{name}: {reason}" for name, reason in left_out.items()]
    return {**metrics, **dict.fromkeys(left_out)}, samples, flags


def _traced(cell: Cell, emulation: Emulation, allocator: Allocator) -> Trace:
    return trace(
        cell,
        allocator,
        compose=False,
        make=lambda device: emulated_rank(cell, emulation, device),
    )
