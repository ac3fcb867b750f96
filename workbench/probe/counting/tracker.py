"""One pass over a workload on fake tensors: operators, their FLOPs and bytes, allocations.

Storages are followed by weak references, so a view costs nothing and a tensor is freed when its
last owner lets go, as on a real device.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from workbench.lvlm.offload import TO_HOST
from workbench.lvlm.weights.random import WITHOUT_MEMORY
from workbench.probe.counting.allocator import HOST, Allocator
from workbench.probe.counting.flops import is_attention, operator_flops
from workbench.probe.counting.outputs import Outputs, tensors_in
from workbench.probe.counting.regions import Nodes
from workbench.probe.counting.traffic import bytes_of, extent


class Operator(NamedTuple):
    """One operator call: what the roofline needs to know of it."""

    name: str
    flops: int
    bytes: int
    attention: bool
    component: str = "decoder"
    """What of the model ran it: tower, adapter or decoder."""
    region: str = ""
    """What of a layer computed, by ``regions``; empty where nobody asked."""
    place: int = 0
    """Which kind of layer ran an attention operator, where the layers of a decoder differ in
    their tokens or roles: kinds are numbered in the order in which they come first."""


class Call(NamedTuple):
    """An operator at a moment, standing for ``times`` calls."""

    tick: int
    times: int
    operator: Operator
    repeated: bool = False
    """Whether a checkpoint runs it a second time, in the backward."""


@dataclass(slots=True)
class Block:
    """One storage: its size and when it was born and freed, counted in operator calls."""

    bytes: int
    born: int
    died: int | None = None
    kind: str = "working"

    def alive(self, tick: int) -> bool:
        return self.born <= tick and (self.died is None or self.died > tick)


class Unmasked:
    """Whether the operator that is being dispatched belongs to a block that no mask touches.

    In backward, an operator belongs to the block whose forward made its autograd node: torch
    numbers nodes in the order in which forwards make them.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._blocks: list[tuple[int, int]] = []

    @contextmanager
    def block(self) -> Iterator[None]:
        first = torch.autograd._get_sequence_nr()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            self._blocks.append((first, torch.autograd._get_sequence_nr()))

    def now(self) -> bool:
        if self._depth or not self._blocks:
            return self._depth > 0
        node = torch._C._current_autograd_node()
        if node is None:
            return False
        number = node._sequence_nr()
        return any(first <= number < end for first, end in self._blocks)


Scratch = Callable[[str, Any, tuple[Any, ...]], Iterable[int]]
"""(component, operator, arguments) -> bytes of each temporary."""


OUTPUTS = Outputs()
"""Every trace's: those of one cell ask again what those of another of the same model asked."""


def none(component: str, packet: Any, args: tuple[Any, ...]) -> Iterable[int]:
    """No temporaries."""
    return ()


@lru_cache(maxsize=4096)
def _name(packet: Any) -> str:
    """An operator's name; torch's own go without their namespace."""
    return str(packet).removeprefix("aten.")


@dataclass
class Tracker(TorchDispatchMode):
    """Enter it inside FakeTensorMode, around one iteration."""

    allocator: Allocator = HOST
    nodes: Nodes | None = None
    """Who knows the region of an operator, if it is asked for."""
    scratch: Scratch = none
    """What a card's kernel allocates beside what it returns."""
    vocabulary: int | None = None
    """Width of a row of logits, while the LM head is at work."""
    calls: list[Call] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    start: int | None = None
    """The moment at which the iteration begins; before it, the workload is made."""
    made: list[Block] = field(default_factory=list)
    """What making the workload allocated and does not hold for its iterations."""
    multiplied: int | None = None
    """The moment at which making it multiplied matrices first, as rotary tables do."""
    memory_only: bool = False
    """Whether allocations alone are asked for: of operators, only matmuls are listed then, and
    without the bytes that they move."""

    def __post_init__(self) -> None:
        super().__init__()
        self.tick = 0
        self.times = 1
        self.component = "decoder"
        self.place = 0
        self._recomputing = False
        self._unmasked = Unmasked()
        self._known: dict[int, tuple[weakref.ref[Any], Block]] = {}
        self._outputs = OUTPUTS

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch's word for whether its compiler is kept out of ``__torch_dispatch__``, which takes
        # part of every call. A workload that is traced is never compiled.
        return False

    def begin(self) -> None:
        """The workload is made: what is allocated from now on is of the iteration."""
        self.tick += 1  # What making it let go last is gone by then.
        self.start = self.tick

    def hold(self, kinds: Mapping[str, Iterable[Tensor]]) -> None:
        """Count tensors that exist before the iteration, by kind; the first kind counts."""
        held_ids: set[int] = set()
        for kind, tensors in kinds.items():
            for tensor in tensors:
                block = self._follow(tensor)
                if id(block) not in held_ids:
                    held_ids.add(id(block))
                    block.kind = kind
        self.made = [b for b in self.blocks if id(b) not in held_ids]
        self.blocks = [b for b in self.blocks if id(b) in held_ids]

    def reserve(self, kind: str, size: int, times: int) -> None:
        """Count what the device's libraries hold throughout."""
        if size:
            size = self.allocator.rounded(size)
            self.blocks += [Block(size, self.tick, kind=kind) for _ in range(times)]

    def label(self, kind: str, tensors: Iterable[Tensor]) -> None:
        """Name the kind of storages made during the iteration, e.g. gradients."""
        for tensor in tensors:
            block = self._follow(tensor)
            if block.kind == "working":
                block.kind = kind

    def enter_component(self, component: str) -> None:
        """Operators from now on are of that component."""
        self.component = component

    def enter_place(self, place: int) -> None:
        """Attention operators from now on are of that kind of layer."""
        self.place = place

    def unmasked(self) -> AbstractContextManager[None]:
        """A block whose batched matmuls no mask touches, nor those of its backward."""
        return self._unmasked.block()

    @contextmanager
    def recomputed(self) -> Iterator[None]:
        """A block of the backward in which a checkpoint runs its forward a second time."""
        self._recomputing = True
        try:
            yield
        finally:
            self._recomputing = False

    def end(self) -> None:
        """The iteration is over: what goes with the workload does not end in it."""
        self._known.clear()

    def block_of(self, tensor: Tensor) -> Block:
        """The block of a tensor's storage."""
        return self._follow(tensor)

    def moved(self, direction: str, tensor: Tensor) -> None:
        """The last operator copied ``tensor`` to the host or from it: ``lvlm.offload`` says so."""
        if not self.memory_only:
            call, size = self.calls[-1], extent(tensor)
            ran = call.operator
            copied = Operator(direction, 0, size, False, ran.component, ran.region)
            self.calls[-1] = call._replace(operator=copied)
        if direction == TO_HOST:
            block = self._follow(tensor)
            block.kind = "offloaded"
            block.bytes = tensor.untyped_storage().nbytes()  # The host rounds by its own rule.

    def loop(self, steps: range) -> Iterator[int]:
        """First, second, third and last of ``steps``; the third stands for all between.

        Of the first the second finds sums alone, to which it adds; all others find what the one
        before left beside them, which is the most where the last is shorter.
        """
        if len(steps) <= 4:
            yield from steps
            return
        yield from steps[:2]
        before, self.times = self.times, self.times * (len(steps) - 3)
        yield steps[2]
        self.times = before
        yield steps[-1]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.start is None:
            return self._make(func, args, kwargs)
        out = self._outputs.of(func, args, kwargs)
        outputs = [out] if type(out) is Tensor else tensors_in(out)
        if not outputs:
            return out
        self.tick += 1
        region = "" if self.nodes is None else self.nodes.now()
        for tensor in outputs:
            self._follow(tensor)
        if not func.is_view:
            packet = func.overloadpacket
            for size in self.scratch(self.component, packet, args) if self.allocator.card else ():
                size = self.allocator.rounded(size)
                self.blocks.append(Block(size, self.tick, self.tick + 1, "temporaries"))
            flops = operator_flops(packet, args, kwargs, out)
            if flops or not self.memory_only:
                inputs = (args, *kwargs.values())
                self.calls.append(self._call(packet, flops, region, inputs, outputs))
        return out

    def _call(
        self, packet: Any, flops: int, region: str, given: Any, outputs: list[Tensor]
    ) -> Call:
        """What there is to know of an operator that has just run."""
        name = _name(packet)
        if self.memory_only:
            return Call(self.tick, self.times, Operator(name, flops, 0, False))
        num_bytes = bytes_of(packet, tensors_in(given), outputs)
        attention = is_attention(packet) and not self._unmasked.now()
        place = self.place if attention else 0
        operator = Operator(name, flops, num_bytes, attention, self.component, region, place)
        return Call(self.tick, self.times, operator, self._recomputing)

    def _make(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operator that makes the workload: only what it allocates counts."""
        out = self._outputs.of(func, args, kwargs)
        if not func.is_view and not WITHOUT_MEMORY.get():
            self.tick += 1
            for tensor in tensors_in(out):
                self._follow(tensor)
            if self.multiplied is None and operator_flops(func.overloadpacket, args, kwargs, out):
                self.multiplied = self.tick
        return out

    def _follow(self, tensor: Tensor) -> Block:
        storage = tensor.untyped_storage()
        key = storage._cdata
        followed = self._known.get(key)
        if followed is not None and followed[0]() is not None:
            return followed[1]
        block = Block(self.allocator.rounded(storage.nbytes()), self.tick)
        if self.vocabulary is not None and tensor.shape[-1:] == (self.vocabulary,):
            block.kind = "logits"
        self.blocks.append(block)

        def free(_: object) -> None:
            block.died = self.tick + 1  # Before the next operator allocates.

        self._known[key] = (weakref.ref(storage, free), block)
        return block


class Timeline(NamedTuple):
    """Everything that happened in one iteration, in operator calls."""

    blocks: list[Block]
    calls: list[Call]
    forward_end: int
    """The moment at which a train pass's forward is over; -1 for other passes."""
    start: int = 0
    """The moment at which the iteration begins; what it is made of was born before, or then."""
    made: tuple[Block, ...] = ()
    """What making the workload allocated and does not hold for its iterations."""
    multiplied: int | None = None
    """The moment before the iteration at which matrices were multiplied first, if they were."""
    passing: tuple[Block, ...] = ()
    """Gradients as they are where a bucket collects them: until their layer's backward is over."""

    def peak(self) -> tuple[int, int]:
        """The largest sum of live blocks, in bytes, and the moment it is first reached."""
        changes: dict[int, int] = {}
        for block in self.blocks:
            changes[block.born] = changes.get(block.born, 0) + block.bytes
            if block.died is not None:
                changes[block.died] = changes.get(block.died, 0) - block.bytes
        live = best = moment = 0
        for tick in sorted(changes):
            live += changes[tick]
            if live > best:
                best, moment = live, tick
        return best, moment

    def levels(self, first: int, last: int) -> list[int]:
        """The sum of live blocks at every moment from ``first`` to ``last``."""
        changes: Counter[int] = Counter()
        for block in self.blocks:
            changes[max(first, block.born)] += block.bytes
            if block.died is not None:
                changes[max(first, block.died)] -= block.bytes
        return list(accumulate(changes[moment] for moment in range(first, last + 1)))

    def by_kind(self, moment: int) -> dict[str, int]:
        """Live bytes at a moment by kind; what the forward leaves behind is ``activations``."""
        end = self.forward_end
        sums: Counter[str] = Counter()
        for block in self.blocks:
            if block.born <= moment and (block.died is None or block.died > moment):
                saved = block.kind == "working" and block.born <= end and block.alive(end)
                sums["activations" if saved else block.kind] += block.bytes
        return dict(sums)

    def rounded(self, allocator: Allocator) -> "Timeline":
        """The same iteration with every block rounded, but for what waits on the host."""

        def blocks(each: Iterable[Block]) -> list[Block]:
            return [
                block
                if block.kind == "offloaded"
                else Block(allocator.rounded(block.bytes), block.born, block.died, block.kind)
                for block in each
            ]

        return self._replace(
            blocks=blocks(self.blocks),
            made=(*blocks(self.made),),
            passing=(*blocks(self.passing),),
        )

    def without(self, *kinds: str) -> "Timeline":
        """The same iteration, as if blocks of these kinds were somewhere else."""
        return self._replace(blocks=[b for b in self.blocks if b.kind not in kinds])

    def of_kind(self, kind: str) -> int:
        """Bytes of all blocks of a kind."""
        return self.of_kinds(kind)[kind]

    def of_kinds(self, *kinds: str) -> dict[str, int]:
        """Bytes of all blocks of each kind."""
        sums = dict.fromkeys(kinds, 0)
        for block in self.blocks:
            if block.kind in sums:
                sums[block.kind] += block.bytes
        return sums


def storage_bytes(tensors: Iterable[Tensor], granule: int = 1) -> int:
    """Bytes of distinct storages, each rounded up."""
    sizes = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(-(-size // granule) * granule for size in sizes.values())
