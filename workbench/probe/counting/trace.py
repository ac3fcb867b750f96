"""A workload traced on fake tensors: FLOPs by convention, allocations, operators.

Nothing is computed. A decoder of many layers is composed from three units of them.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from workbench.collector import without_collector
from workbench.lvlm.attention import Pairs
from workbench.lvlm.build import Checkpointed, Workload, build, kinds_of
from workbench.lvlm.kernels import KERNELS
from workbench.lvlm.kinds import Stretch, shortened, stretches_of
from workbench.lvlm.loops import RUNNER
from workbench.lvlm.marks import unmasked_by
from workbench.lvlm.offload import WATCH
from workbench.lvlm.packed import Packed
from workbench.lvlm.place import Place
from workbench.lvlm.ring import ring_bytes
from workbench.lvlm.scopes.decoder import Run
from workbench.lvlm.ulysses import all_to_all_bytes
from workbench.probe.counting.allocator import HOST, Allocator, threads_of
from workbench.probe.counting.card import card_operators, temporaries
from workbench.probe.counting.closed import hidden_model_flops, model_flops
from workbench.probe.counting.compose import (
    LAST,
    MIDDLE,
    UNITS,
    Boundaries,
    Repeat,
    repeat_middles,
)
from workbench.probe.counting.flops import FUSED_BACKWARDS
from workbench.probe.counting.parts import parts_named
from workbench.probe.counting.pieces import Nodes, named
from workbench.probe.counting.shapes import shapes_only
from workbench.probe.counting.states import Parameter
from workbench.probe.counting.tracker import (
    Block,
    Operator,
    Scratch,
    Timeline,
    Tracker,
    causal_attention,
    tally,
    total,
)
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
    params_by_part: dict[str, int]
    """Of tower, adapter and decoder, where a cell has them."""
    parameters: tuple[Parameter, ...]
    """Every parameter, in the module's order."""
    all_to_all_bytes: int | None
    """Sent by one rank to those that share its sequence by heads; None where none does."""
    ring_bytes: int | None
    """The same to those that share it by rows."""
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

World = Callable[[], AbstractContextManager[str]]


def trace(
    cell: Cell,
    allocator: Allocator = HOST,
    compose: bool = True,
    world: World = shapes_only,
    pieces: bool = False,
    pictures: Pictures | None = None,
    make: Callable[[str], Workload] | None = None,
    memory_only: bool = False,
) -> Trace:
    """Trace one iteration of ``cell`` on a device that hands out memory as ``allocator`` does.

    ``compose`` traces three units of a decoder instead of every layer, ``world`` is what tensors
    are made of, ``pieces`` asks which part of a layer ran each operator, ``pictures`` are files
    that it shows. ``make`` builds the workload of a cell that is emulated, on a device of that
    world. ``memory_only``: model_flops of adapters, which take a second trace, are left out.

    Raises RequestError and Unsupported as ``build`` does.
    """
    plan = plan_of(cell) if compose else ()
    try:
        # Whatever waits for the collector would be freed at a moment of its own choice.
        on_card = card_operators() if allocator.card else nullcontext()
        with without_collector(), world() as device, on_card:
            tracker = Tracker(allocator)
            with torch.device(device), tracker:
                if make is None:
                    layers = shortened(plan, plan[0].total, UNITS) if plan else None
                    workload = build(cell, device, layers, pictures)
                else:
                    workload = make(device)
            if pieces or has_branches(workload):
                tracker.nodes = Nodes()
            tracker.begin()
            found = _traced(workload, tracker, plan)
    except (OverflowError, RuntimeError) as error:
        if "overflow" in str(error).lower() or "too large" in str(error).lower():
            raise RequestError(
                f"num_visual {cell.num_visual}: a tensor of this cell has more than 2**63 bytes"
            ) from None
        raise
    if memory_only or (cell.lora is None and cell.weights_dtype is None):
        return found
    # No closed form: which gradients there are depends on where the first adapter stands.
    plain = cell.replace(**WITHOUT_RECOMPUTATION)
    again = found if plain == cell else trace(plain, allocator, compose, world, pictures=pictures)
    return replace(found, model_flops=again.flops, model_flops_causal=again.flops_causal)


def has_branches(workload: Workload) -> bool:
    """Whether pairs of some layer are told apart by the piece that computes them."""
    return any(
        branches_of(workload, place, parts.window) is not None
        for parts, place, _ in workload.layers
    )


def branches_of(workload: Workload, place: Place, window: int | None) -> dict[str, Pairs] | None:
    """Pairs of a layer by the piece that computes them, where some may lack a backward."""
    system, cell = workload.system, workload.cell
    found = system.pairs_by_branch(place, window)
    if found is None and (cell.frozen or cell.lora):
        found = system.pairs_by_stream(place, window)
    return found


def plan_of(cell: Cell) -> tuple[Stretch, ...]:
    """What repeats in a cell's decoder, of which three units are traced with all that does not.

    Nothing where that is no fewer layers than there are.
    """
    if cell.scope == "layer":
        return ()
    return stretches_of(kinds_of(cell), grouped_by(cell), UNITS)


def grouped_by(cell: Cell) -> int:
    """Layers under one checkpoint."""
    return (cell.checkpoint_every or 1) if cell.checkpoint else 1


def _traced(workload: Workload, tracker: Tracker, plan: tuple[Stretch, ...]) -> Trace:
    tracker.scratch = scratch_of(workload)
    runner, watch = RUNNER.set(tracker.loop), WATCH.set(tracker.moved)
    met = EXPERTS.set(experts_met(workload))
    try:
        with boundaries(workload, tracker, plan) as bounds, arrivals(workload, tracker) as begun:
            end = run(workload, tracker)
    finally:
        RUNNER.reset(runner)
        WATCH.reset(watch)
        EXPERTS.reset(met)
    parameters = [*workload.module.parameters()]
    tracker.label("gradients", [p.grad for p in parameters if p.grad is not None])
    kept = [tensor for cache in workload.context.caches for tensor in cache.tensors]
    tracker.label("keys and values", kept)
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
        held = [tracker.block_of(t) for t in (*weights, *caches)]
        repeats.append(Repeat(marks.frozen(), middles, held))
        repeated |= dict.fromkeys((id(w) for w in (*weights, *packed)), middles)
        again = traced_layers[first:second]
        workload.layers += [(p, place, n * (middles - 1)) for p, place, n in again]
    timeline = repeat_middles(timeline, repeats)
    listed = parameters_of(workload, repeated)
    times = workload.cell.accumulate
    operators = Counter({op: times * n for op, n in tally(timeline.calls).items()})
    flops = total(operators)
    params = sum(p.numel for p in listed)
    return Trace(
        flops=flops,
        flops_causal=flops - sum(masked_flops(workload, operators).values()),
        skipped_by_place=masked_flops(workload, operators, skipped=True),
        model_flops=times * model_flops(workload),
        model_flops_causal=times * (model_flops(workload) - hidden_model_flops(workload)),
        params=params,
        active_params=params - sum(n * p.idle_parameters for p, _, n in workload.layers),
        parameters=listed,
        params_by_part=params_by_part(workload, params),
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


def run(workload: Workload, tracker: Tracker) -> int:
    """One iteration under a tracker that knows what was there before; the forward's end."""
    tracker.hold(workload.held_by_kind())
    tracker.reserve("workspace", tracker.allocator.workspace, threads_of(workload.cell))
    end = -1
    pieces = nullcontext() if tracker.nodes is None else named(workload, tracker.nodes.mark)
    with ExitStack() as looking:
        looking.enter_context(parts_named(workload, tracker.enter_part))
        looking.enter_context(logits_named(workload, tracker))
        looking.enter_context(places_named(workload, tracker))
        looking.enter_context(unmasked_by(tracker.unmasked))
        looking.enter_context(pieces)
        looking.enter_context(tracker)
        looking.enter_context(workload.guard())
        outputs = workload.run_forward()
        if workload.cell.pass_ == "train":
            # A moment of its own: what the forward's last operator let go is not there any more.
            tracker.tick += 1
            end = tracker.tick
            workload.run_backward(outputs)
    return end


def scratch_of(workload: Workload) -> Scratch:
    """What a workload's operators allocate on a card beside what they return."""
    kernels = {"decoder": workload.context.kernel}

    def scratch(part: str, packet: Any, args: tuple[Any, ...]) -> Iterable[int]:
        if packet not in FUSED_BACKWARDS:
            return temporaries(packet, args)
        grad, q, k, _, out = args[:5]
        # A tower's attention is SDPA's, whatever the decoder's kernel.
        return kernels.get(part, KERNELS["sdpa"]).temporaries(grad, q, k, out)

    return scratch


@contextmanager
def logits_named(workload: Workload, tracker: Tracker) -> Iterator[None]:
    """Tell the tracker when rows of the vocabulary are logits: while the LM head is at work."""
    head = next((m for n, m in workload.module.named_modules() if n.endswith("lm_head")), None)
    if head is None:
        yield
        return

    def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        tracker.vocabulary = module.get_parameter("weight").shape[0]
        if inputs[0].requires_grad:
            inputs[0].register_hook(lambda _: setattr(tracker, "vocabulary", None))

    handle = head.register_forward_pre_hook(enter)
    try:
        yield
    finally:
        handle.remove()


def middles_of(plan: tuple[Stretch, ...]) -> list[tuple[int, int]]:
    """Where the second of the three units of each stretch begins and ends among traced layers."""
    if not plan:
        return []
    kept = shortened(plan, plan[0].total, UNITS)
    starts = [kept.index(stretch.start) + stretch.unit for stretch in plan]
    return [(start, start + s.unit) for start, s in zip(starts, plan, strict=True)]


def units(workload: Workload, middle: tuple[int, int]) -> list[list[nn.Module]]:
    """The traced layers (or checkpointed groups) before a stretch's second unit, in it, after."""
    layers: Any = workload.module.get_submodule("layers")
    modules = list(layers)
    first, second = (index // grouped_by(workload.cell) for index in middle)
    return [modules[:first], modules[first:second], modules[second:]]


class _Marks:
    """Boundaries as they are met."""

    def __init__(self) -> None:
        self.forward = [-1] * UNITS
        self.backward = [-1] * UNITS
        self.head = -1

    def frozen(self) -> Boundaries:
        met = self.backward if self.backward[MIDDLE] >= 0 else []
        return Boundaries(self.forward, self.head, met)


@contextmanager
def boundaries(
    workload: Workload, tracker: Tracker, plan: tuple[Stretch, ...]
) -> Iterator[list[_Marks]]:
    """Note when each unit's forward and backward begin, for every stretch."""
    marks, handles = [_Marks() for _ in plan], []
    for mark, middle in zip(marks, middles_of(plan), strict=True):
        for number, unit in enumerate(units(workload, middle)):

            def enter(_: nn.Module, __: Any, mark: _Marks = mark, number: int = number) -> None:
                mark.forward[number] = tracker.tick + 1

            def leave(
                _: nn.Module, __: Any, output: Any, mark: _Marks = mark, number: int = number
            ) -> None:
                if number == LAST:
                    mark.head = tracker.tick + 1
                for tensor in output:
                    if isinstance(tensor, Tensor) and tensor.requires_grad:
                        tensor.register_hook(lambda _: arrive(mark, number))

            handles.append(unit[0].register_forward_pre_hook(enter))
            handles.append(unit[-1].register_forward_hook(leave))

    def arrive(mark: _Marks, number: int) -> None:
        if mark.backward[number] < 0:
            mark.backward[number] = tracker.tick + 1

    try:
        yield marks
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def arrivals(workload: Workload, tracker: Tracker) -> Iterator[list[int]]:
    """The moments at which the backward of a layer, or of those under one checkpoint, begins."""
    begun: list[int] = []

    def leave(_module: nn.Module, _inputs: Any, output: Any) -> None:
        for tensor in output:
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(lambda _: begun.append(tracker.tick + 1))

    layers = getattr(workload.module, "layers", ()) if workload.cell.optimizes else ()
    handles = [layer.register_forward_hook(leave) for layer in layers]
    try:
        yield begun
    finally:
        for handle in handles:
            handle.remove()


def passing_gradients(blocks: Iterable[Block], begun: Iterable[int]) -> tuple[Block, ...]:
    """Blocks of gradients that live until the next layer's backward begins."""
    moments = sorted(begun)
    found = []
    for block in blocks:
        if block.kind == "gradients":
            after = bisect_right(moments, block.born)
            died = moments[after] if after < len(moments) else None
            found.append(Block(block.bytes, block.born, died, block.kind))
    return tuple(found)


def masked_flops(
    workload: Workload, operators: Counter[Operator], skipped: bool = False
) -> dict[int, int]:
    """Attention FLOPs of pairs that the mask hides, exact, by kind of layer.

    Only where the kernel skips them if ``skipped``.

    Every pair of a kind of layer costs the same in forward, backward and recomputation, so the
    masked share of its attention FLOPs is the masked share of its pairs.
    """
    if workload.cell.pass_ == "decode":
        return {}  # A cache holds only what its token sees.
    kinds = place_kinds(workload)
    system, kernel = workload.system, workload.context.kernel
    dense: dict[int, Counter[str]] = {}
    masked: dict[int, dict[str, Fraction]] = {}
    for parts, place, count in workload.layers:
        kind, whole = kinds[place.kind], system.pairs(place, parts.window)
        branches = branches_of(workload, place, parts.window) or {"": whole}
        share = system.skipped_share(kernel, place, parts.window) if skipped else 1
        computed = dense.setdefault(kind, Counter())
        hidden = masked.setdefault(kind, {})
        for branch, pairs in branches.items():
            computed[branch] += count * pairs.dense
            more = count * (pairs.dense - pairs.allowed) * Fraction(share)
            hidden[branch] = hidden.get(branch, Fraction(0)) + more
    found: Counter[int] = Counter()
    for kind, pieces in causal_attention(operators).items():
        together = pieces if "" not in dense[kind] else {"": sum(pieces.values())}
        for branch, attention in together.items():
            exact = attention * masked[kind][branch] / dense[kind][branch]
            assert exact.denominator == 1, "attention FLOPs are a multiple of the dense pairs"
            found[kind] += int(exact)
    return dict(found)


def place_kinds(workload: Workload) -> dict[Hashable, int]:
    """The kinds of places in a workload, numbered in the order in which they come first."""
    found: dict[Hashable, int] = {}
    for _, place, _ in workload.layers:
        found.setdefault(place.kind, len(found))
    return found


@contextmanager
def places_named(workload: Workload, tracker: Tracker) -> Iterator[None]:
    """Tell the tracker which kind of layer runs, where a decoder has several."""
    kinds = place_kinds(workload)
    if len(kinds) < 2:
        yield
        return
    handles = []
    for block, (_, place, _) in zip(blocks_of(workload), workload.layers, strict=True):

        def enter(*_: Any, kind: int = kinds[place.kind]) -> None:
            tracker.enter_place(kind)

        def leave(_module: nn.Module, _inputs: Any, output: Any, enter: Any = enter) -> None:
            arrived = iter((True,))
            for tensor in output:
                if isinstance(tensor, Tensor) and tensor.requires_grad:
                    tensor.register_hook(lambda _: enter() if next(arrived, False) else None)

        handles += [block.register_forward_pre_hook(enter), block.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def blocks_of(workload: Workload) -> list[nn.Module]:
    """The module of every layer, whatever checkpoints are around them."""
    blocks: list[nn.Module] = []
    for layer in workload.module.get_submodule("layers").children():
        inner = layer.inner if isinstance(layer, Checkpointed) else layer
        blocks += [*inner.blocks] if isinstance(inner, Run) else [inner]
    return blocks


def parameters_of(
    workload: Workload, repeated: Mapping[int, int] = MappingProxyType({})
) -> tuple[Parameter, ...]:
    """Every parameter, in order; a run of those whose ids are ``repeated`` stands so many times.

    Packed matrices come last.
    """
    part_of = workload.part_of()
    listed: list[Parameter] = []
    run: list[Parameter] = []
    times = 1
    for parameter in workload.module.parameters():
        width = parameter.element_size()
        entry = Parameter(
            part_of[id(parameter)],
            parameter.numel(),
            parameter.requires_grad,
            None if width == workload.context.dtype.itemsize else parameter.nbytes,
        )
        if id(parameter) in repeated:
            run.append(entry)
            times = repeated[id(parameter)]
            continue
        listed += run * times
        run = []
        listed.append(entry)
    packed = [m for m in workload.module.modules() if isinstance(m, Packed)]
    matrices = (
        Parameter("decoder", m.numel, False, m.nbytes)
        for m in packed
        for _ in range(repeated.get(id(m), 1))
    )
    return (*listed, *run * times, *matrices)


def saved_bytes(traced: Trace) -> int:
    """Activations that the forward of a train pass leaves for its backward on the device.

    Logits are among them and, on a CPU, what is offloaded.
    """
    end = traced.timeline.forward_end
    if end < 0:
        return 0
    kinds = traced.timeline.by_kind(end)
    return sum(kinds.get(kind, 0) for kind in ("activations", "logits", "offloaded"))


def idle_windows(workload: Workload) -> tuple[int, ...]:
    """Windows under which every layer sees as much as without."""
    found: dict[int, bool] = {}
    for parts, place, _ in workload.layers:
        if parts.window is not None:
            bites = workload.system.window_bites(place, parts.window)
            found[parts.window] = found.get(parts.window, False) or bites
    return tuple(sorted(window for window, bites in found.items() if not bites))


def params_by_part(workload: Workload, params: int) -> dict[str, int]:
    """Parameters of each part; the decoder's are the rest, and empty where there is one part."""
    if not workload.modules:
        return {}
    sizes = {
        name: sum(p.numel() for p in module.parameters())
        for name, module in workload.modules.items()
        if name != "decoder"
    }
    return {**sizes, "decoder": params - sum(sizes.values())}
