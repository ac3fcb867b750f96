"""A workload traced on fake tensors: FLOPs by convention, allocations, operators.

Nothing is computed. A decoder of many layers is composed from three units of them.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from workbench.collector import without_collector
from workbench.lvlm.build import build
from workbench.lvlm.kinds import Stretch, shortened
from workbench.lvlm.offload import WATCH
from workbench.lvlm.parts.loops import RUNNER
from workbench.lvlm.parts.marks import recomputed_by, unmasked_by
from workbench.lvlm.sharing.ring import ring_bytes
from workbench.lvlm.sharing.ulysses import all_to_all_bytes
from workbench.lvlm.weights.packed import Packed
from workbench.lvlm.workload import Workload
from workbench.probe.counting.allocator import HOST, Allocator, threads_of
from workbench.probe.counting.card import card_operators
from workbench.probe.counting.closed import hidden_model_flops, model_flops
from workbench.probe.counting.components import components_named
from workbench.probe.counting.compose import MIDDLE, UNITS, Repeat, repeat_middles
from workbench.probe.counting.hooks import (
    arrivals,
    logits_named,
    passing_gradients,
    places_named,
    scratch_of,
)
from workbench.probe.counting.masked import has_branches, idle_windows, masked_flops
from workbench.probe.counting.parameters import parameters_of, params_by_component
from workbench.probe.counting.regions import Nodes, named
from workbench.probe.counting.shapes import shapes_only
from workbench.probe.counting.states import Parameter
from workbench.probe.counting.stretches import boundaries, middles_of, plan_of, units
from workbench.probe.counting.tallies import tally, total
from workbench.probe.counting.tracker import Operator, Timeline, Tracker
from workbench.probe.counting.traffic import EXPERTS
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.pictures import Pictures


@dataclass(frozen=True)
class Trace:
    """One iteration of a cell. FLOPs follow the conventions of ``metrics.METRICS``."""

    flops: int
    flops_causal: int
    skipped_by_place: dict[int, int]
    """Of pairs that a mask hides from the decoder and that the kernel therefore never computes:
    all that ``flops_causal`` leaves out, or those of some layers, or none; by kind of layer
    (``Operator.place``)."""
    model_flops: int
    model_flops_causal: int
    """model_flops without the pairs that the mask hides."""
    params: int
    active_params: int
    """Those of ``params`` that one token meets: all, but for experts that it is not sent to."""
    params_by_component: dict[str, int]
    """Parameters of tower, adapter and decoder, where a cell has them."""
    parameters: tuple[Parameter, ...]
    """Every parameter, in the module's order."""
    all_to_all_bytes: int | None
    """Bytes that one rank sends to others that share its sequence by heads; None without any."""
    ring_bytes: int | None
    """Bytes that one rank sends to others that share its sequence by rows; None without any."""
    kv_cache_bytes: int | None
    """What a prefill leaves and a decode step reads; None for a train pass."""
    idle_windows: tuple[int, ...]
    """Windows of its layers that hide nothing, for the sequence is no longer."""
    offload_bytes: int | None
    """What waits on the host when the forward is over; None where nothing is offloaded."""
    card: bool
    """Whether the device is a card, so that the host is another place."""
    timeline: Timeline
    """Of the device's memory. On a CPU the host is that memory, and what waits there is in it."""
    operators: Counter[Operator]

    @property
    def flops_skipped(self) -> int:
        """Attention FLOPs of the decoder that the kernel never computes, of all layers."""
        return sum(self.skipped_by_place.values())

    def rounded(self, allocator: Allocator) -> "Trace":
        """The trace as that allocator rounds blocks which were traced as they were asked for."""
        return replace(self, timeline=self.timeline.rounded(allocator))

    @property
    def bytes_moved(self) -> int:
        return sum(op.bytes * count for op, count in self.operators.items())


WITHOUT_RECOMPUTATION: dict[str, Any] = {
    "checkpoint": False,
    "checkpoint_every": None,
    "offload": False,
    "chunk": None,
    "tiled": False,
}
"""Fields of a cell that computes nothing twice."""
IN_PIECES = ("chunk", "tiled")
"""Those under which operators run twice outside of checkpoints."""

World = Callable[[], AbstractContextManager[str]]


def trace(
    cell: Cell,
    allocator: Allocator = HOST,
    compose: bool = True,
    world: World = shapes_only,
    regions: bool = False,
    pictures: Pictures | None = None,
    make: Callable[[str], Workload] | None = None,
    memory_only: bool = False,
    forward_only: bool = False,
    plain: Callable[[Cell], "Trace"] | None = None,
) -> Trace:
    """Trace one iteration of ``cell`` on a device that hands out memory as ``allocator`` does.

    ``compose`` traces three units of a decoder instead of every layer, ``world`` is what tensors
    are made of, ``regions`` asks which region of a layer ran each operator, ``pictures`` are files
    that it shows. ``make`` builds the workload of a cell that is emulated, on a device of that
    world. ``memory_only``: only the timeline and what follows from it is right; FLOPs, bytes that
    are moved and model_flops of adapters are left out or partial.
    ``forward_only``: a train pass ends with its forward, whose activations are all there then; not
    for a composed trace. ``plain`` traces the cell that computes nothing twice, as this function
    does without it.

    Raises RequestError and Unsupported as ``build`` does.
    """
    plan = plan_of(cell) if compose else ()
    try:
        # Whatever waits for the collector would be freed at a moment of its own choice.
        on_card = card_operators() if allocator.card else nullcontext()
        with without_collector(), world() as device, on_card:
            tracker = Tracker(allocator, memory_only=memory_only)
            with torch.device(device), tracker:
                if make is None:
                    layers = shortened(plan, plan[0].total, UNITS) if plan else None
                    workload = build(cell, device, layers, pictures)
                else:
                    workload = make(device)
            if allocator.card:
                kernel, system = workload.context.kernel, workload.system
                kernel.check_on_card(cell.dtype, system.decomposed)
            if regions or (has_branches(workload) and not memory_only):
                tracker.nodes = Nodes()
            tracker.begin()
            traced = _traced(workload, tracker, plan, forward_only)
    except (OverflowError, RuntimeError) as error:
        if "overflow" in str(error).lower() or "too large" in str(error).lower():
            raise RequestError(
                f"num_visual {cell.num_visual}: a tensor of this cell has more than 2**63 bytes"
            ) from None
        raise
    if memory_only or not has_frozen_layers(cell) or not any(getattr(cell, f) for f in IN_PIECES):
        return traced
    own = cell.replace(**WITHOUT_RECOMPUTATION)
    if plain is not None:
        again = plain(own)
    else:
        again = trace(own, allocator, compose, world, pictures=pictures)
    return replace(traced, model_flops=again.flops, model_flops_causal=again.flops_causal)


def has_frozen_layers(cell: Cell) -> bool:
    """Whether model_flops have no closed form: which gradients there are depends on where the
    first adapter stands.
    """
    return cell.lora is not None or cell.weights_dtype is not None


def _traced(
    workload: Workload, tracker: Tracker, plan: tuple[Stretch, ...], forward_only: bool
) -> Trace:
    tracker.scratch = scratch_of(workload)
    runner, watch = RUNNER.set(tracker.loop), WATCH.set(tracker.moved)
    met = EXPERTS.set(experts_met(workload))
    try:
        with boundaries(workload, tracker, plan) as bounds, arrivals(workload, tracker) as begun:
            end = run(workload, tracker, forward_only)
    finally:
        RUNNER.reset(runner)
        WATCH.reset(watch)
        EXPERTS.reset(met)
    parameters = [*workload.module.parameters()]
    tracker.label("gradients", [p.grad for p in parameters if p.grad is not None])
    cached = [tensor for cache in workload.context.caches for tensor in cache.tensors]
    tracker.label("keys and values", cached)
    tracker.label("input gradients", [x.grad for x in workload.inputs if x.grad is not None])
    timeline = Timeline(
        tracker.blocks,
        tracker.calls,
        end,
        tracker.start or 0,
        tuple(tracker.made),
        tracker.multiplied,
        passing_gradients(tracker.blocks, begun),
    )
    repeats, repeated = [], dict[int, int]()
    traced_layers = [*workload.layers]
    for marks, (first, second), stretch in zip(bounds, middles_of(plan), plan, strict=True):
        unit = units(workload, (first, second))[MIDDLE]
        weights = [w for layer in unit for w in layer.parameters()]
        caches = [cache for layer in unit for cache in layer.buffers()]
        packed = [m for layer in unit for m in layer.modules() if isinstance(m, Packed)]
        middles = stretch.count - (UNITS - 1)
        blocks = [tracker.block_of(t) for t in (*weights, *caches)]
        repeats.append(Repeat(marks.frozen(), middles, blocks))
        repeated |= dict.fromkeys((id(w) for w in (*weights, *packed)), middles)
        again = traced_layers[first:second]
        workload.layers += [(p, place, n * (middles - 1)) for p, place, n in again]
    tracker.end()
    timeline = repeat_middles(timeline, repeats)
    trained = workload.cell.optimizes and not forward_only
    listed = parameters_of(workload, repeated, backward=trained)
    times = workload.cell.accumulate
    operators = Counter({op: times * n for op, n in tally(timeline.calls).items()})
    flops = total(operators)
    if has_frozen_layers(workload.cell):
        once = tally(call for call in timeline.calls if not call.repeated)
        computed = Counter({op: times * n for op, n in once.items()})
        useful = total(computed)
        useful_causal = useful - sum(masked_flops(workload, computed).values())
    else:
        useful = times * model_flops(workload)
        useful_causal = useful - times * hidden_model_flops(workload)
    params = sum(p.numel for p in listed)
    return Trace(
        flops=flops,
        flops_causal=flops - sum(masked_flops(workload, operators).values()),
        skipped_by_place=masked_flops(workload, operators, skipped=True),
        model_flops=useful,
        model_flops_causal=useful_causal,
        params=params,
        active_params=params - sum(n * p.idle_parameters for p, _, n in workload.layers),
        parameters=listed,
        params_by_component=params_by_component(workload, params),
        all_to_all_bytes=all_to_all_bytes(workload.cell, workload.context.dtype.itemsize),
        ring_bytes=ring_bytes(
            workload.cell, workload.system, workload.layers, workload.context.dtype.itemsize
        ),
        kv_cache_bytes=None if workload.cell.pass_ == "train" else workload.kv_cache_bytes,
        idle_windows=idle_windows(workload),
        offload_bytes=timeline.of_kind("offloaded") if workload.cell.offload else None,
        card=tracker.allocator.card,
        timeline=timeline.without("offloaded") if tracker.allocator.card else timeline,
        operators=operators,
    )


def experts_met(workload: Workload) -> int | None:
    """Experts of a layer that a skewed router sends all tokens to; None where it does not."""
    if not workload.cell.experts_skew:
        return None
    return max(parts.experts.active for parts, _, _ in workload.layers if parts.experts)


def run(workload: Workload, tracker: Tracker, forward_only: bool = False) -> int:
    """One iteration under a tracker that knows what was there before; the forward's end.

    ``forward_only``: without the backward, so that what the forward leaves for it is there.
    """
    tracker.hold(workload.held_by_kind())
    tracker.reserve("workspace", tracker.allocator.workspace, threads_of(workload.cell))
    end = -1
    regions = nullcontext() if tracker.nodes is None else named(workload, tracker.nodes.mark)
    with ExitStack() as looking:
        looking.enter_context(components_named(workload, tracker.enter_component))
        looking.enter_context(logits_named(workload, tracker))
        looking.enter_context(places_named(workload, tracker))
        looking.enter_context(unmasked_by(tracker.unmasked))
        looking.enter_context(recomputed_by(tracker.recomputed))
        looking.enter_context(regions)
        looking.enter_context(tracker)
        looking.enter_context(workload.guard())
        outputs = workload.run_forward()
        if workload.cell.pass_ == "train":
            # A moment of its own: what the forward's last operator let go is not there any more.
            tracker.tick += 1
            end = tracker.tick
            if not forward_only:
                workload.run_backward(outputs)
    return end


def saved_bytes(traced: Trace) -> int:
    """Activations that the forward of a train pass leaves for its backward on the device.

    Logits are among them and, on a CPU, what is offloaded.
    """
    end = traced.timeline.forward_end
    if end < 0:
        return 0
    kinds = traced.timeline.by_kind(end)
    return sum(kinds.get(kind, 0) for kind in ("activations", "logits", "offloaded"))
