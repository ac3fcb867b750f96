"""torch's caching allocator for CUDA, replayed request by request on a card of a given capacity.

The rules are those of c10/cuda/CUDACachingAllocator.cpp and c10/core/AllocatorConfig.h (torch 2.11
to 2.13) on one stream. Small requests (up to 1 MiB) and others come from pools of their own; a
request takes the best fitting free chunk, of the lowest address among equals, or new memory.

``default``: new memory is a segment: 2 MiB for small requests, 20 MiB up to 10 MiB, else the
request rounded up to 2 MiB. ``expandable_segments``: a pool is one range of addresses whose pages
(2 MiB, 20 MiB in the large pool) get memory when they are needed.

Where the card has no memory left, whole free segments (or pages) are returned to it and the
request is tried once more; only then it is out of memory.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass

from workbench.probe.counting.allocator import MIN_BLOCK

MIB = 2**20
SMALL = MIB
"""The largest small request (kSmallSize); a rest of a large chunk beyond it is split off."""
SMALL_SEGMENT = ROUND = 2 * MIB
LARGE_SEGMENT, LARGE = 20 * MIB, 10 * MIB
"""The segment of a request from 1 to 10 MiB (kLargeBuffer, kMinLargeAlloc)."""


class OutOfMemory(Exception):
    """The card refuses a request; ``request`` is its size in bytes."""

    def __init__(self, request: int) -> None:
        super().__init__(f"{request:,} bytes")
        self.request = request


@dataclass(eq=False, slots=True)
class Chunk:
    """A stretch of a segment and its neighbours there."""

    address: int
    size: int
    small: bool
    before: "Chunk | None" = None
    after: "Chunk | None" = None
    free: bool = False
    mapped: bool = True
    """Whether there is memory behind its addresses; only expandable segments have some without."""


class CachingAllocator:
    """The allocator under its default settings.

    ``capacity`` is what the card gives, in bytes; None is a card without end.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.allocated = 0
        """Bytes of the chunks that are taken, with what a request leaves unused in its chunk."""
        self.reserved = 0
        """Bytes that it has of the card."""
        self.peak_reserved = 0
        self.peak_allocated = 0
        self.retries = 0
        """Times that cached memory was returned for a request."""
        self._free: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        self._chunks: dict[int, Chunk] = {}
        self._next_address = 0

    def take(self, request: int) -> Chunk:
        """A chunk of at least ``request`` bytes; raises OutOfMemory."""
        size = (request + MIN_BLOCK - 1) // MIN_BLOCK * MIN_BLOCK or MIN_BLOCK
        small = size <= SMALL
        chunk = self._best_fit(size, small)
        if chunk is None:
            chunk = self._more(size, small)
        if chunk is None:
            self.retries += 1
            self._return_cached()
            chunk = self._more(size, small)
        if chunk is None:
            raise OutOfMemory(request)
        chunk.free = False
        if self._splits(chunk.size - size, small):
            self._split(chunk, size)
        self.allocated += chunk.size
        if self.allocated > self.peak_allocated:
            self.peak_allocated = self.allocated
        return chunk

    def give(self, chunk: Chunk) -> None:
        """Free a chunk; free neighbours become one."""
        self.allocated -= chunk.size
        self._put_back(chunk)

    def restart_peak(self) -> None:
        """Forget the highest figures so far, as torch.cuda.reset_peak_memory_stats does."""
        self.peak_reserved, self.peak_allocated = self.reserved, self.allocated

    def _best_fit(self, size: int, small: bool) -> Chunk | None:
        free = self._free[small]
        at = bisect_left(free, (size, 0))
        return self._chunks[free.pop(at)[1]] if at < len(free) else None

    def _splits(self, rest: int, small: bool) -> bool:
        return rest >= MIN_BLOCK if small else rest > SMALL

    def _split(self, chunk: Chunk, size: int) -> None:
        """Leave ``size`` bytes to the chunk; the rest becomes a free one after it."""
        tail = Chunk(chunk.address + size, chunk.size - size, chunk.small, chunk, chunk.after)
        if chunk.after is not None:
            chunk.after.before = tail
        chunk.size, chunk.after = size, tail
        self._chunks[tail.address] = tail
        self._set_free(tail)

    def _put_back(self, chunk: Chunk) -> None:
        before, after = chunk.before, chunk.after
        if before is not None and before.free:
            self._set_taken(before)
            chunk = self._merged(before, chunk)
        if after is not None and after.free:
            self._set_taken(after)
            chunk = self._merged(chunk, after)
        self._set_free(chunk)

    def _set_free(self, chunk: Chunk) -> None:
        chunk.free = True
        insort(self._free[chunk.small], (chunk.size, chunk.address))

    def _set_taken(self, chunk: Chunk) -> None:
        chunk.free = False
        free = self._free[chunk.small]
        del free[bisect_left(free, (chunk.size, chunk.address))]

    def _merged(self, first: Chunk, second: Chunk) -> Chunk:
        """The first, with the second in it; neighbours are of one segment, and of one kind."""
        del self._chunks[second.address]
        first.size += second.size
        first.after = second.after
        if second.after is not None:
            second.after.before = first
        return first

    def _has_room(self, size: int) -> bool:
        return self.capacity is None or self.reserved + size <= self.capacity

    def _reserve(self, size: int) -> None:
        self.reserved += size
        self.peak_reserved = max(self.peak_reserved, self.reserved)

    def _more(self, size: int, small: bool) -> Chunk | None:
        """A new segment as one chunk; None where the card has no room for it."""
        if small:
            total = SMALL_SEGMENT
        else:
            total = LARGE_SEGMENT if size < LARGE else -(-size // ROUND) * ROUND
        if not self._has_room(total):
            return None
        chunk = Chunk(self._next_address, total, small)
        self._next_address += total
        self._chunks[chunk.address] = chunk
        self._reserve(total)
        return chunk

    def _return_cached(self) -> None:
        """Whole free segments go back to the card."""
        for free in self._free.values():
            whole = [
                (size, address)
                for size, address in free
                if self._chunks[address].before is None and self._chunks[address].after is None
            ]
            for size, address in whole:
                free.remove((size, address))
                del self._chunks[address]
                self.reserved -= size


class ExpandableAllocator(CachingAllocator):
    """The allocator under ``expandable_segments:True``: each pool is one range of addresses.

    Stretches of it without memory are chunks that are neither free nor mapped.
    """

    def __init__(self, capacity: int | None = None) -> None:
        super().__init__(capacity)
        self._unmapped: dict[bool, list[int]] = {True: [], False: []}
        """Addresses of chunks without memory, the lowest first; the last one has no end."""
        for small, base in ((False, 0), (True, RANGE)):
            self._chunks[base] = Chunk(base, RANGE, small, mapped=False)
            self._unmapped[small].append(base)

    def _splits(self, rest: int, small: bool) -> bool:
        return rest >= MIN_BLOCK

    def _best_fit(self, size: int, small: bool) -> Chunk | None:
        free = self._free[small]
        at = bisect_left(free, (size, 0))
        # A chunk that can grow counts with what it can grow to: another is taken before it.
        while at + 1 < len(free) and self._extent(free[at + 1]) < self._extent(free[at]):
            at += 1
        return self._chunks[free.pop(at)[1]] if at < len(free) else None

    def _extent(self, place: tuple[int, int]) -> int:
        chunk = self._chunks[place[1]]
        after = chunk.after
        return chunk.size + (after.size if after is not None and not after.mapped else 0)

    def _more(self, size: int, small: bool) -> Chunk | None:
        """Memory behind free addresses, the lowest that are enough; None where there is none."""
        start = self._addresses(size, small)
        chunk = start if start.mapped else self._map(start, size)
        while chunk is not None and chunk.size < size:
            after = chunk.after
            assert after is not None, "the range has no end"
            chunk = self._map(after, size - chunk.size)
        if chunk is not None:
            self._set_taken(chunk)
        return chunk

    def _addresses(self, size: int, small: bool) -> Chunk:
        """The first of the free and unmapped neighbours that a request is put into."""
        for address in self._unmapped[small]:
            chunk = self._chunks[address]
            start = chunk.before if chunk.before is not None and chunk.before.free else chunk
            have = 0
            at: Chunk | None = start
            while have < size and at is not None and (at.free or not at.mapped):
                have, at = have + at.size, at.after
            if have >= size:
                return start
        raise AssertionError("the range has no end")

    def _map(self, chunk: Chunk, size: int) -> Chunk | None:
        """Put whole pages behind the first ``size`` bytes; what is free there is then one chunk.

        None where the card has no room for them.
        """
        page = SMALL_SEGMENT if chunk.small else LARGE_SEGMENT
        size = min(chunk.size, -(-size // page) * page)
        if not self._has_room(size):
            return None
        self._reserve(size)
        self._unmapped[chunk.small].remove(chunk.address)
        self._cut(chunk, size)
        chunk.mapped = True
        self._put_back(chunk)
        before = chunk.before
        return before if chunk.address not in self._chunks and before is not None else chunk

    def _cut(self, chunk: Chunk, size: int) -> None:
        """Leave ``size`` bytes to the chunk; what is beyond has no memory."""
        if size == chunk.size:
            return
        rest = Chunk(
            chunk.address + size, chunk.size - size, chunk.small, chunk, chunk.after, mapped=False
        )
        if chunk.after is not None:
            chunk.after.before = rest
        chunk.size, chunk.after = size, rest
        self._chunks[rest.address] = rest
        insort(self._unmapped[chunk.small], rest.address)

    def _return_cached(self) -> None:
        """Whole free pages go back to the card; their addresses stay."""
        for small, page in ((True, SMALL_SEGMENT), (False, LARGE_SEGMENT)):
            for _, address in list(self._free[small]):
                self._unmap(self._chunks[address], page)

    def _unmap(self, chunk: Chunk, page: int) -> None:
        first = -(-chunk.address // page) * page
        end = (chunk.address + chunk.size) // page * page
        if end <= first:
            return
        self._set_taken(chunk)
        if end < chunk.address + chunk.size:
            self._split(chunk, end - chunk.address)
        if first > chunk.address:
            self._split(chunk, first - chunk.address)
            self._set_free(chunk)
            after = chunk.after
            assert after is not None, "just made"
            chunk = after
            self._set_taken(chunk)
        chunk.mapped = False
        self.reserved -= chunk.size
        after, before = chunk.after, chunk.before
        if after is not None and not after.mapped:
            self._unmapped[chunk.small].remove(after.address)
            chunk = self._merged(chunk, after)
        if before is not None and not before.mapped:
            self._merged(before, chunk)
        else:
            insort(self._unmapped[chunk.small], chunk.address)


class HostAllocator(CachingAllocator):
    """A CPU's memory: every request is served as long as the sum does not pass the capacity."""

    def take(self, request: int) -> Chunk:
        if not self._has_room(request):
            raise OutOfMemory(request)
        self._reserve(request)
        self.allocated += request
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return Chunk(0, request, small=False)

    def give(self, chunk: Chunk) -> None:
        self.allocated -= chunk.size
        self.reserved -= chunk.size


RANGE = 2**60
"""Bytes of addresses of a pool: without end."""
HOST = "host"
SETTINGS: dict[str, type[CachingAllocator]] = {
    "default": CachingAllocator,
    "expandable_segments": ExpandableAllocator,
    HOST: HostAllocator,
}
"""What can be replayed: by the word of a cell's field ``allocator``, and what a CPU does."""
