"""What a card's allocator does with a cell: its requests in order, iteration after iteration.

The requests are those of the trace: what making the workload takes, then the blocks of an
iteration, each from its birth to its death. Allocated bytes alone do not tell whether a cell fits:
free memory in pieces that are too small helps nobody, and the second iteration finds other pieces
than the first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from workbench.lvlm.optimizers import Temporaries
from workbench.probe.counting.tracker import Block, Timeline
from workbench.probe.predicting.caching import SETTINGS, CachingAllocator, Chunk, OutOfMemory

WORKSPACE = "workspace"
"""The kind of the matrix library's blocks."""
MAX_ITERATIONS = 6
"""Iterations replayed at most; nearly every cell repeats itself from the second or third on."""
UNTIL_THE_NEXT = ("gradients", "input gradients", "keys and values")
"""Kinds of blocks that live until the next iteration begins."""


@dataclass(frozen=True)
class Program:
    """Every request of a process that runs a cell.

    A request n takes a chunk for block n, ~n releases it. Blocks of no bytes ask for nothing.
    """

    sizes: Sequence[int]
    """Bytes of each block, by its number."""
    setup: Sequence[int]
    """Requests before the first iteration."""
    first: Sequence[int]
    """Those of the first iteration, in which the matrix library takes its workspaces too."""
    later: Sequence[int]
    """Those of each iteration after it."""

    def allocated_peak(self, sizes: "np.ndarray[Any, np.dtype[np.float64]]") -> float:
        """The largest sum of blocks at once, were they of these sizes, in bytes."""
        requests = np.array([*self.setup, *self.first])
        is_request = requests >= 0
        bytes_ = sizes[np.where(is_request, requests, ~requests)]
        return float(np.where(is_request, bytes_, -bytes_).cumsum().max())

    def is_like(self, other: "Program") -> bool:
        """Whether two programs differ in nothing but their blocks' sizes."""
        return len(self.sizes) == len(other.sizes) and all(
            getattr(self, name) == getattr(other, name) for name in ("setup", "first", "later")
        )


class Outcome(NamedTuple):
    """How the replay of a program ended."""

    reserved_bytes: int
    """The most that the allocator has of the card in the second iteration, or in the last one."""
    retries: int
    """Times that it had to return cached memory."""
    allocated_bytes: int
    """The most that is taken at once, in the same iteration: as torch counts it, with the rest of
    each chunk that was too small to be split off.
    """
    refused: int | None = None
    """Bytes of the request for which there was no memory; None where every iteration ran."""
    iteration: int | None = None
    """The iteration of that request, from 1 on; 0 is what comes before the first."""

    @property
    def fits(self) -> bool:
        """Whether the iterations run."""
        return self.refused is None


def make_program(
    timeline: Timeline, states: Sequence[int] = (), steps: Iterable[Temporaries] = ()
) -> Program:
    """The requests of a traced cell.

    ``states`` are bytes of what is held beside the trace (an optimizer's states, a rank's share),
    in the order in which it is allocated; ``steps`` is what the optimizer's step takes.
    """
    start = timeline.start
    sizes: list[int] = []

    def number(blocks: Sequence[Block]) -> range:
        sizes.extend(block.bytes for block in blocks)
        return range(len(sizes) - len(blocks), len(sizes))

    def add(*more: int) -> list[int]:
        sizes.extend(more)
        return list(range(len(sizes) - len(more), len(sizes)))

    standing = [b for b in timeline.blocks if b.born <= start and b.kind != WORKSPACE]
    spaces = [b for b in timeline.blocks if b.kind == WORKSPACE]
    workspaces = list(zip(_first_matmuls(timeline), number(spaces), strict=False))
    before = [*timeline.made, *standing]
    making = [
        *_events(before, number(before), until=start),
        *(t for t in workspaces if t[0] <= start),
    ]
    setup = [request for _, request in sorted(making, key=itemgetter(0))]
    setup += add(*states)
    blocks = [b for b in timeline.blocks if b.born > start]
    numbers = number(blocks)
    running = _events(blocks, numbers)
    freed = [(b, n) for b, n in zip(blocks, numbers, strict=True) if b.died is None]
    dropped = [~n for block, n in freed if block.kind not in UNTIL_THE_NEXT]
    cleared = [~n for block, n in freed if block.kind in UNTIL_THE_NEXT]
    for step in steps:
        own = add(*step.sizes)
        dropped += [own[n] if n >= 0 else ~own[~n] for n in step.requests]
    running_first = [*running, *(t for t in workspaces if t[0] > start)]
    starting = sorted(running_first, key=itemgetter(0))
    return Program(
        sizes,
        setup,
        [request for _, request in starting] + dropped,
        cleared + [request for _, request in running] + dropped,
    )


def replay(
    program: Program, setting: str, capacity: int | None, iterations: int = MAX_ITERATIONS
) -> Outcome:
    """Run a program on a card that gives ``capacity`` bytes, until nothing new happens.

    ``setting`` is the allocator's, a key of ``SETTINGS``; a card without end has capacity None.
    At most so many iterations are run.
    """
    cache = SETTINGS[setting](capacity)
    chunks: dict[int, Chunk] = {}
    reserved = allocated = 0
    for iteration in range(iterations + 1):
        before = cache.reserved, cache.retries
        cache.restart_peak()
        requests = (program.setup, program.first, program.later)[min(iteration, 2)]
        try:
            _run(requests, program.sizes, cache, chunks)
        except OutOfMemory as error:
            peaks = cache.peak_reserved, cache.retries, cache.peak_allocated
            return Outcome(*peaks, error.request, iteration)
        if iteration <= 2:
            reserved, allocated = cache.peak_reserved, cache.peak_allocated
        if iteration >= 2 and (cache.peak_reserved, cache.retries) == before:
            break
    return Outcome(reserved, cache.retries, allocated)


def _run(
    requests: Sequence[int],
    sizes: Sequence[int],
    cache: CachingAllocator,
    chunks: dict[int, Chunk],
) -> None:
    take, give = cache.take, cache.give
    for request in requests:
        if request >= 0:
            size = sizes[request]
            if size:
                chunks[request] = take(size)
        elif sizes[~request]:
            give(chunks.pop(~request))


Event = tuple[int, int]
"""The moment of a request, and the request."""


def _events(blocks: Sequence[Block], numbers: range, until: int | None = None) -> list[Event]:
    """Births and deaths in their order; at one moment deaths come first.

    Deaths after ``until`` are left out: the block is there for good.
    """
    born = [(block.born, n) for block, n in zip(blocks, numbers, strict=True)]
    died = [
        (block.died, ~n)
        for block, n in zip(blocks, numbers, strict=True)
        if block.died is not None and (until is None or block.died <= until)
    ]
    return sorted([*died, *born], key=itemgetter(0))


def _first_matmuls(timeline: Timeline) -> list[int]:
    """The moments at which each thread that multiplies matrices does so for the first time.

    The first thread makes the workload and runs the forward, the second the backward.
    """
    moments = sorted(
        call.tick
        for call in timeline.calls
        if call.operator.flops and not call.operator.name.startswith("_scaled_dot_product")
    )
    end = timeline.forward_end
    later = [moment for moment in moments if moment > end >= 0]
    moments_made = moments[:1] if timeline.multiplied is None else [timeline.multiplied]
    return [*moments_made, *later[:1]]
