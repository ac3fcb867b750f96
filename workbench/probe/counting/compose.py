"""A decoder of n layers from a traced one: of every stretch that repeats, three units of layers.

A unit is the smallest run of layers that repeats (Gemma's local and global layers, a group under
one checkpoint). The middle unit's stretch of the timeline, forward and backward, is repeated;
blocks keep their place relative to the stretch in which they are born and freed. Equal to tracing
every layer.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from workbench.probe.counting.tracker import Block, Call, Timeline

FIRST, MIDDLE, LAST = 0, 1, 2
UNITS = 3


@dataclass(frozen=True)
class Boundaries:
    """Moments at which each unit's forward, the head, and each unit's backward begin."""

    forward: Sequence[int]
    """The moments at which the forward of each of the three units begins."""
    head: int
    backward: Sequence[int]
    """By unit: the last unit's comes first in time. Empty without a backward."""


@dataclass(frozen=True)
class Repeat:
    """A stretch of three units, the middle one of which is to stand ``times`` times."""

    bounds: Boundaries
    times: int
    unit_weights: Sequence[Block]
    """Held blocks of the middle unit's parameters."""


def repeat_middles(timeline: Timeline, repeats: Sequence[Repeat]) -> Timeline:
    """The timeline with the middle unit of every stretch repeated.

    One stretch after another: to each, the others are a part of what stands before or after it.
    """
    bounds = [repeat.bounds for repeat in repeats]
    for number, repeat in enumerate(repeats):
        stretches = _Stretches(timeline, bounds[number], repeat.times)
        timeline = _repeated(timeline, stretches, repeat)
        bounds = [stretches.shifted(each) for each in bounds]
    return timeline


def _repeated(timeline: Timeline, stretches: "_Stretches", repeat: Repeat) -> Timeline:
    blocks = [copy for block in timeline.blocks for copy in stretches.copies(block)]
    blocks += [replace(block) for block in repeat.unit_weights for _ in range(repeat.times - 1)]
    calls = [stretches.call(call) for call in timeline.calls]
    end = timeline.forward_end
    return timeline._replace(
        blocks=blocks,
        calls=calls,
        forward_end=end if end < 0 else stretches.moved(end).first,
        passing=tuple(copy for block in timeline.passing for copy in stretches.copies(block)),
    )


class _Moved(NamedTuple):
    """The new moments of an old one; copies are counted by unit, not by time."""

    first: int
    step: int

    def at(self, copy: int) -> int:
        return self.first + self.step * copy


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

    def moved(self, tick: int) -> _Moved:
        stretch = self.where(tick)
        first, length = self.base[stretch] + tick - self.starts[stretch], self.lengths[stretch]
        if stretch == self.forward:
            return _Moved(first, length)
        if stretch == self.backward:
            return _Moved(first + (self.times - 1) * length, -length)
        return _Moved(first, 0)

    def shifted(self, bounds: Boundaries) -> Boundaries:
        """Where another stretch's boundaries are when this one's unit is repeated."""
        return Boundaries(
            [self.moved(tick).first for tick in bounds.forward],
            self.moved(bounds.head).first,
            [self.moved(tick).first for tick in bounds.backward],
        )

    def call(self, call: Call) -> Call:
        """One that stands for its repetitions, at the first of them."""
        copies = self.times if self.where(call.tick) in (self.forward, self.backward) else 1
        return Call(self.moved(call.tick).first, call.times * copies, call.operator)

    def copies(self, block: Block) -> list[Block]:
        """Where a block of the middle unit lives in each repetition; others are only moved."""
        size, kind, born = block.bytes, block.kind, self.moved(block.born)
        middle = self.where(block.born) in (self.forward, self.backward)
        # Freed in the neighbouring repetition: the first in time for what was born before it.
        alone = 0 if self.where(block.born) < self.forward else self.times - 1
        every = range(self.times) if middle else (alone,)
        if block.died is None:
            return [Block(size, born.at(copy), None, kind) for copy in every]
        # Freed after the last operator of a stretch is freed in it, not in the next.
        died = self.moved(block.died - 1)
        ends = [died.at(copy) + 1 for copy in every]
        if middle:
            self._pass_on(block, ends)
        return [Block(size, born.at(c), end, kind) for c, end in zip(every, ends, strict=True)]

    def _pass_on(self, block: Block, ends: list[int]) -> None:
        """What a later stretch frees is freed by the next repetition in time, where there is one;
        only the last repetition's by the stretch itself. Changes ``ends``, one a repetition.
        """
        assert block.died is not None, "a freed block"
        born, died = self.where(block.born), self.where(block.died - 1)
        if died == self.forward + 1 or (died == self.backward - 1 and born == self.forward):
            later = 1
        elif died == self.backward + 1:
            later = -1
        else:
            return
        stretch = self.forward if died == self.forward + 1 else self.backward
        start = self.moved(self.starts[stretch])
        # The last unit's backward is the end of its stretch; the others begin theirs.
        before = self.lengths[died] - self.lengths[stretch] if died == self.backward - 1 else 0
        offset = block.died - self.starts[died] - before
        for copy in range(self.times):
            if 0 <= copy + later < self.times:
                ends[copy] = start.at(copy + later) + offset  # At most the stretch's length.
