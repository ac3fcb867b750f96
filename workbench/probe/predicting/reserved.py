"""What CUDA's caching allocator holds for an iteration: its segments, replayed block by block.

The rules are those of torch's default settings (c10/cuda/CUDACachingAllocator.cpp and
c10/core/AllocatorConfig.h) on one stream: small requests share 2 MiB segments, others take the
best fitting free block or a segment of their own, and freed neighbours are merged.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from workbench.probe.counting.allocator import MIN_BLOCK
from workbench.probe.counting.tracker import Block

MIB = 2**20
SMALL = MIB
"""The largest small request (kSmallSize); a rest of a large block beyond it is split off."""
SMALL_SEGMENT = ROUND = 2 * MIB
LARGE_SEGMENT, LARGE = 20 * MIB, 10 * MIB
"""The segment of a request from 1 to 10 MiB (kLargeBuffer, kMinLargeAlloc)."""


@dataclass(eq=False, slots=True)
class _Chunk:
    """A stretch of a segment and its neighbours there."""

    address: int
    size: int
    small: bool
    before: "_Chunk | None" = None
    after: "_Chunk | None" = None
    free: bool = False


Places = list[tuple[int, int]]
"""(size, address) of free chunks, the smallest first."""


class _Cache:
    def __init__(self) -> None:
        self.reserved = 0
        self._small: Places = []
        self._large: Places = []
        self._chunks: dict[int, _Chunk] = {}

    def take(self, request: int) -> _Chunk:
        size = max(MIN_BLOCK, -(-request // MIN_BLOCK) * MIN_BLOCK)
        small = size <= SMALL
        free = self._small if small else self._large
        at = bisect_left(free, (size, 0))
        chunk = self._chunks[free.pop(at)[1]] if at < len(free) else self._segment(size, small)
        chunk.free = False
        rest = chunk.size - size
        if rest >= MIN_BLOCK if small else rest > SMALL:
            tail = _Chunk(chunk.address + size, rest, small, chunk, chunk.after, True)
            if chunk.after is not None:
                chunk.after.before = tail
            chunk.size, chunk.after = size, tail
            self._chunks[tail.address] = tail
            insort(free, (rest, tail.address))
        return chunk

    def give(self, chunk: _Chunk) -> None:
        free = self._small if chunk.small else self._large
        before, after = chunk.before, chunk.after
        if before is not None and before.free:
            del free[bisect_left(free, (before.size, before.address))]
            chunk = self._merged(before, chunk)
        if after is not None and after.free:
            del free[bisect_left(free, (after.size, after.address))]
            chunk = self._merged(chunk, after)
        chunk.free = True
        self._chunks[chunk.address] = chunk
        insort(free, (chunk.size, chunk.address))

    def _merged(self, first: _Chunk, second: _Chunk) -> _Chunk:
        """The first, with the second in it; neighbours are of one segment, and of one kind."""
        del self._chunks[second.address]
        first.size += second.size
        first.after = second.after
        if second.after is not None:
            second.after.before = first
        return first

    def _segment(self, size: int, small: bool) -> _Chunk:
        if small:
            total = SMALL_SEGMENT
        else:
            total = LARGE_SEGMENT if size < LARGE else -(-size // ROUND) * ROUND
        chunk = _Chunk(self.reserved, total, small)
        self._chunks[chunk.address] = chunk
        self.reserved += total
        return chunk


def reserved_bytes(held: Sequence[int], blocks: Iterable[Block]) -> int:
    """Bytes of all segments after an iteration over ``blocks``, on top of what is ``held``.

    Blocks that were there before the iteration count among the held ones.
    """
    cache = _Cache()
    born: dict[int, list[Block]] = {}
    died: dict[int, list[Block]] = {}
    for size in held:
        cache.take(size)
    for block in blocks:
        if block.born == 0 and block.died is None:
            cache.take(block.bytes)
            continue
        born.setdefault(block.born, []).append(block)
        if block.died is not None:
            died.setdefault(block.died, []).append(block)
    alive: dict[int, _Chunk] = {}
    for moment in sorted(born.keys() | died.keys()):
        for block in died.get(moment, ()):
            chunk = alive.pop(id(block), None)
            if chunk is not None:
                cache.give(chunk)
        for block in born.get(moment, ()):
            if block.bytes:
                alive[id(block)] = cache.take(block.bytes)
    return cache.reserved
