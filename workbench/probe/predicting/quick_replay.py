"""What ``replay`` says of a program, in less time.

Only under the default setting; the rules are those of ``caching.CachingAllocator``, which a test
holds it against. Memory is counted in blocks of 512 bytes here, and a free chunk is one number of
its size and address.
"""

from bisect import bisect_left
from collections.abc import Sequence

from workbench.probe.counting.allocator import MIN_BLOCK
from workbench.probe.predicting.caching import (
    LARGE,
    LARGE_SEGMENT,
    ROUND,
    SMALL,
    SMALL_SEGMENT,
)
from workbench.probe.predicting.replay import MAX_ITERATIONS, Outcome, Program, replay

SHIFT = 44
"""Bits of an address, in blocks: more than 9 million GB can be handed out, one after another."""
SMALLEST_LARGE = SMALL // MIN_BLOCK + 1
"""Blocks of the smallest request that is not small; also of the smallest rest of a large chunk
that is split off."""
MOST = 1 << 31
"""Blocks of a request that is left to ``replay``."""
NO_END = 1 << SHIFT
"""Blocks of a card without end."""


class Chunk:
    """A stretch of a segment, in blocks, and its neighbours there.

    ``key`` is ``size << SHIFT | address`` while it is free, 0 while it is taken.
    """

    __slots__ = ("address", "after", "before", "key", "size")

    def __init__(
        self,
        address: int,
        size: int,
        before: "Chunk | None" = None,
        after: "Chunk | None" = None,
    ) -> None:
        self.address, self.size, self.before, self.after = address, size, before, after
        self.key = 0


def outcome(
    program: Program, setting: str, capacity: int | None, iterations: int = MAX_ITERATIONS
) -> Outcome:
    """What ``replay(program, setting, capacity, iterations)`` is."""
    sizes = [-(-size // MIN_BLOCK) for size in program.sizes]
    if setting != "default" or max(sizes, default=0) >= MOST:
        return replay(program, setting, capacity, iterations)
    card = _Card(NO_END if capacity is None else capacity // MIN_BLOCK, sizes)
    reserved = allocated = 0
    for iteration in range(iterations + 1):
        before = card.next_address
        refused = card.serve((program.setup, program.first, program.later)[min(iteration, 2)])
        peaks = card.peak_reserved * MIN_BLOCK, card.peak_allocated * MIN_BLOCK
        if refused is not None:
            request = program.sizes[refused]
            return Outcome(peaks[0], card.retries, peaks[1], request, iteration)
        if iteration <= 2:
            reserved, allocated = peaks
        if iteration >= 2 and card.next_address == before:  # No segment was made.
            break
    return Outcome(reserved, card.retries, allocated)


class _Card:
    """The card's memory between two runs of requests; all of it in blocks."""

    def __init__(self, capacity: int, sizes: Sequence[int]) -> None:
        self.capacity, self.sizes = capacity, sizes
        self.reserved = self.next_address = self.retries = 0
        self.peak_reserved = self.peak_allocated = 0
        """The most during the last run."""
        self.allocated = 0
        self.free: tuple[list[int], list[int]] = [], []
        """Keys of free chunks in order: of large requests, and of small ones."""
        self.owners: tuple[list[Chunk], list[Chunk]] = [], []
        """The chunks of these keys."""
        self.spare: list[Chunk] = []
        """Chunks that were merged into others, to be used again: making one takes long."""
        self.taken: list[Chunk | None] = [None] * len(sizes)

    def serve(self, requests: Sequence[int]) -> int | None:
        """Serve requests in order; the block for which there was no memory, if there is one.

        One loop without calls, which would take most of its time.
        """
        sizes, taken, spare = self.sizes, self.taken, self.spare
        (large, small), (large_owners, small_owners) = self.free, self.owners
        self.peak_reserved = self.reserved
        allocated = peak = self.allocated
        for request in requests:
            if request >= 0:
                size = sizes[request]
                if not size:
                    continue
                if size >= SMALLEST_LARGE:
                    free, owners, least = large, large_owners, SMALLEST_LARGE
                else:
                    free, owners, least = small, small_owners, 1
                at = bisect_left(free, size << SHIFT)
                if at < len(free):
                    del free[at]
                    chunk = owners.pop(at)
                    chunk.key = 0
                else:
                    new = self._segment(size)
                    if new is None:
                        self.peak_allocated = peak
                        return request
                    chunk = new
                rest = chunk.size - size
                if rest >= least:
                    tail = spare.pop() if spare else Chunk(0, 0)
                    tail.address = address = chunk.address + size
                    tail.size = rest
                    tail.before = chunk
                    tail.after = after = chunk.after
                    if after is not None:
                        after.before = tail
                    chunk.size = size
                    chunk.after = tail
                    tail.key = key = rest << SHIFT | address
                    at = bisect_left(free, key)
                    free.insert(at, key)
                    owners.insert(at, tail)
                    allocated += size
                else:
                    allocated += chunk.size
                if allocated > peak:
                    peak = allocated
                taken[request] = chunk
                continue
            size = sizes[~request]
            if not size:
                continue
            if size >= SMALLEST_LARGE:
                free, owners = large, large_owners
            else:
                free, owners = small, small_owners
            block = taken[~request]
            assert block is not None, "it was taken"
            allocated -= block.size
            before, after = block.before, block.after
            if before is not None and before.key:
                at = bisect_left(free, before.key)
                del free[at], owners[at]
                before.size += block.size
                before.after = after
                if after is not None:
                    after.before = before
                spare.append(block)
                block = before
            if after is not None and after.key:
                at = bisect_left(free, after.key)
                del free[at], owners[at]
                block.size += after.size
                block.after = after.after
                if after.after is not None:
                    after.after.before = block
                spare.append(after)
            block.key = key = block.size << SHIFT | block.address
            at = bisect_left(free, key)
            free.insert(at, key)
            owners.insert(at, block)
        self.allocated, self.peak_allocated = allocated, peak
        return None

    def _segment(self, size: int) -> Chunk | None:
        """New memory for a request, if need be in place of cached segments."""
        if size < SMALLEST_LARGE:
            total = SMALL_SEGMENT // MIN_BLOCK
        elif size < LARGE // MIN_BLOCK:
            total = LARGE_SEGMENT // MIN_BLOCK
        else:
            total = -(-size * MIN_BLOCK // ROUND) * (ROUND // MIN_BLOCK)
        if self.reserved + total > self.capacity:
            self.retries += 1
            self._return_cached()
            if self.reserved + total > self.capacity:
                return None
        self.reserved += total
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        chunk = Chunk(self.next_address, total)
        self.next_address += total
        return chunk

    def _return_cached(self) -> None:
        """Whole free segments go back to the card."""
        for free, owners in zip(self.free, self.owners, strict=True):
            for chunk in [*owners]:
                if chunk.before is None and chunk.after is None:
                    at = bisect_left(free, chunk.key)
                    del free[at], owners[at]
                    self.reserved -= chunk.size
