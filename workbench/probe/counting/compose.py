"""A decoder of n layers from a traced one of three units of layers: first, middle and last.

A unit is the smallest run of layers that repeats (Gemma's local and global layers, a group under
one checkpoint). The middle unit's stretch of the timeline, forward and backward, is repeated;
blocks keep their place relative to the stretch in which they are born and freed. Equal to tracing
every layer.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from workbench.probe.counting.tracker import Block, Call, Timeline

FIRST, MIDDLE, LAST = 0, 1, 2
UNITS = 3


@dataclass(frozen=True)
class Boundaries:
    """Moments at which each unit's forward, the head, and each unit's backward begin."""

    forward: Sequence[int]
    """Of the three units."""
    head: int
    backward: Sequence[int]
    """By unit: the last unit's comes first in time. Empty without a backward."""


def repeat_middle(
    timeline: Timeline, bounds: Boundaries, times: int, unit_weights: Sequence[Block]
) -> Timeline:
    """The timeline with the middle unit standing ``times`` times instead of once.

    ``unit_weights`` are the held blocks of the middle unit's parameters.
    """
    stretches = _Stretches(timeline, bounds, times)
    blocks = [copy for block in timeline.blocks for copy in stretches.copies(block)]
    blocks += [replace(block) for block in unit_weights for _ in range(times - 1)]
    calls = [copy for call in timeline.calls for copy in stretches.call_copies(call)]
    end = timeline.forward_end
    return Timeline(blocks, calls, end if end < 0 else stretches.move(end, 0))


class _Stretches:
    """Old moments -> new ones. Stretches in time: before, F0, F1, F2, head, B2, B1, B0."""

    def __init__(self, timeline: Timeline, bounds: Boundaries, times: int) -> None:
        back = bounds.backward
        starts = [0, *bounds.forward, bounds.head, *reversed(back)]
        last = max(
            [0, *(c.tick for c in timeline.calls), *(b.died or b.born for b in timeline.blocks)]
        )
        self.starts, self.times = starts, times
        self.forward, self.backward = 2, 6 if back else -1
        lengths = [b - a for a, b in zip(starts, [*starts[1:], last + 1], strict=True)]
        self.base, at = [], 0
        for index, length in enumerate(lengths):
            self.base.append(at)
            at += length * (times if index in (self.forward, self.backward) else 1)
        self.lengths = lengths

    def where(self, tick: int) -> int:
        """The stretch of an old moment."""
        return bisect_right(self.starts, tick) - 1

    def move(self, tick: int, copy: int) -> int:
        """The new moment; ``copy`` chooses among repetitions, counted by unit, not by time."""
        stretch = self.where(tick)
        offset = tick - self.starts[stretch]
        if stretch == self.forward:
            offset += copy * self.lengths[stretch]
        elif stretch == self.backward:
            offset += (self.times - 1 - copy) * self.lengths[stretch]
        return self.base[stretch] + offset

    def call_copies(self, call: Call) -> list[Call]:
        copies = self.times if self.where(call.tick) in (self.forward, self.backward) else 1
        return [call._replace(tick=self.move(call.tick, i)) for i in range(copies)]

    def copies(self, block: Block) -> list[Block]:
        """Where a block of the middle unit lives in each repetition; others are only moved."""
        born = self.where(block.born)
        # Freed after the last operator of a stretch is freed in it, not in the next.
        died = None if block.died is None else self.where(block.died - 1)
        middle = (self.forward, self.backward)
        if born not in middle:
            # Freed in the neighbouring repetition: the first in time for what was born before it.
            copy = 0 if born < self.forward else self.times - 1
            return [self._at(block, copy, block.died, copy)]
        return [self._repeated(block, copy, born, died) for copy in range(self.times)]

    def _repeated(self, block: Block, copy: int, born: int, died: int | None) -> Block:
        if died is None or died in (self.forward, self.backward, self.backward - 2):
            return self._at(block, copy, block.died, copy)
        if died == self.forward + 1 or (died == self.backward - 1 and born == self.forward):
            return self._next(block, copy, copy + 1, died)
        if died == self.backward + 1:
            return self._next(block, copy, copy - 1, died)
        return self._at(block, copy, block.died, copy)

    def _next(self, block: Block, copy: int, neighbour: int, died: int) -> Block:
        """Freed in the next repetition in time, or in the outer unit where there is none."""
        assert block.died is not None, "a freed block"
        if not 0 <= neighbour < self.times:
            return self._at(block, copy, block.died, copy)
        offset = block.died - self.starts[died]  # At most the stretch's length.
        stretch = self.forward if died == self.forward + 1 else self.backward
        moved = self.move(self.starts[stretch], neighbour) + offset
        return replace(block, born=self.move(block.born, copy), died=moved)

    def _at(self, block: Block, copy: int, died: int | None, died_copy: int) -> Block:
        return replace(
            block,
            born=self.move(block.born, copy),
            died=None if died is None else self.move(died - 1, died_copy) + 1,
        )
