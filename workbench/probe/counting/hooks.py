"""What a tracker is told while a workload runs: logits, kinds of layers, arrivals, temporaries."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from workbench.lvlm.kernels import KERNELS
from workbench.lvlm.layers import Checkpointed
from workbench.lvlm.scopes.decoder import Run
from workbench.lvlm.workload import Workload
from workbench.probe.counting.card import temporaries
from workbench.probe.counting.flops import FUSED_BACKWARDS
from workbench.probe.counting.masked import place_kinds
from workbench.probe.counting.tracker import Block, Scratch, Tracker


def scratch_of(workload: Workload) -> Scratch:
    """What a workload's operators allocate on a card beside what they return."""
    kernels = {"decoder": workload.context.kernel}

    def scratch(component: str, packet: Any, args: tuple[Any, ...]) -> Iterable[int]:
        if packet not in FUSED_BACKWARDS:
            return temporaries(packet, args)
        grad, q, k, _, out = args[:5]
        # A tower's attention is SDPA's, whatever the decoder's kernel.
        return kernels.get(component, KERNELS["sdpa"]).temporaries(grad, q, k, out)

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


@contextmanager
def places_named(workload: Workload, tracker: Tracker) -> Iterator[None]:
    """Tell the tracker which kind of layer runs, where a decoder has several."""
    kinds = place_kinds(workload)
    if len(set(kinds.values())) < 2:
        yield
        return
    handles = []
    for block, (_, place, _) in zip(blocks_of(workload), workload.layers, strict=True):

        def enter(*_: Any, kind: int = kinds[place]) -> None:
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
    """The module of every layer, whatever checkpoints are around them, once for each place."""
    blocks: list[nn.Module] = []
    layers: Any = workload.module.get_submodule("layers")
    for layer in layers:  # Its children() leave out layers that share their weights.
        inner = layer.inner if isinstance(layer, Checkpointed) else layer
        blocks += [*inner.blocks] if isinstance(inner, Run) else [inner]
    return blocks


@contextmanager
def arrivals(workload: Workload, tracker: Tracker) -> Iterator[list[int]]:
    """The moments at which the backward of a layer, or of those under one checkpoint, begins."""
    begun: list[int] = []

    # Of keys and values that other layers share the gradient is whole at a moment of its own.
    first = min(0, workload.system.shared_states)

    def leave(_module: nn.Module, _inputs: Any, output: Any) -> None:
        for tensor in output[first:]:
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
    passing = []
    for block in blocks:
        if block.kind == "gradients":
            after = bisect_right(moments, block.born)
            died = moments[after] if after < len(moments) else None
            passing.append(Block(block.bytes, block.born, died, block.kind))
    return tuple(passing)
