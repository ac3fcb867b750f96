"""A decoder of n layers from a traced one: of every stretch that repeats, three units of layers.

A unit is the smallest run of layers that repeats (Gemma's local and global layers, a group under
one checkpoint). The middle unit's stretch of the timeline, forward and backward, is repeated;
blocks keep their place relative to the stretch in which they are born and freed. Equal to tracing
every layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
        forward_end=end if end < 0 else stretches.firsts[end],
        passing=tuple(copy for block in timeline.passing for copy in stretches.copies(block)),
    )


class _Stretches:
    """Old moments -> new ones. Stretches in time: before, F0, F1, F2, head, B2, B1, B0.

    Copies of the middle unit are counted by unit, not by time: each one's forward comes after the
    one's before it, its backward before that one's.
    """

    def __init__(self, timeline: Timeline, bounds: Boundaries, times: int) -> None:
        back = bounds.backward
        starts = [0, *bounds.forward, bounds.head, *reversed(back)]
        last = max(
            starts[-1],
            timeline.forward_end,
            max((call.tick for call in timeline.calls), default=0),
            max((block.died or block.born for block in timeline.blocks), default=0),
        )
        self.starts, self.times = starts, times
        self.forward, self.backward = 2, 6 if back else -1
        self.lengths = [b - a for a, b in zip(starts, [*starts[1:], last + 1], strict=True)]
        self.steps = [0] * len(starts)
        """By stretch: from a moment of one copy to that of the next."""
        self.stretches, self.firsts = list[int](), list[int]()
        """By old moment: its stretch, and its new moment, of the first copy."""
        at = 0
        for index, length in enumerate(self.lengths):
            first = at
            if index == self.forward:
                self.steps[index] = length
            elif index == self.backward:
                self.steps[index] = -length
                first += (times - 1) * length
            self.stretches += [index] * length
            self.firsts += range(first, first + length)
            at += length * (times if self.steps[index] else 1)

    def shifted(self, bounds: Boundaries) -> Boundaries:
        """Where another stretch's boundaries are when this one's unit is repeated."""
        firsts = self.firsts
        return Boundaries(
            [firsts[tick] for tick in bounds.forward],
            firsts[bounds.head],
            [firsts[tick] for tick in bounds.backward],
        )

    def call(self, call: Call) -> Call:
        """One that stands for its repetitions, at the first of them."""
        copies = self.times if self.steps[self.stretches[call.tick]] else 1
        return call._replace(tick=self.firsts[call.tick], times=call.times * copies)

    def copies(self, block: Block) -> list[Block]:
        """Where a block of the middle unit lives in each repetition; others are only moved."""
        size, kind, died = block.bytes, block.kind, block.died
        born, stretch = self.firsts[block.born], self.stretches[block.born]
        step = self.steps[stretch]
        if died is None:
            copies = range(self.times if step else 1)
            return [Block(size, born + step * copy, None, kind) for copy in copies]
        # Freed after the last operator of a stretch is freed in it, not in the next.
        end, later = self.firsts[died - 1] + 1, self.steps[self.stretches[died - 1]]
        if not step:
            # Freed in the neighbouring repetition.
            copy = 0 if stretch < self.forward else self.times - 1
            return [Block(size, born, end + later * copy, kind)]
        ends = [end + later * copy for copy in range(self.times)]
        self._pass_on(block, ends)
        return [Block(size, born + step * copy, at, kind) for copy, at in enumerate(ends)]

    def _pass_on(self, block: Block, ends: list[int]) -> None:
        """What a later stretch frees is freed by the next repetition in time, where there is one;
        only the last repetition's by the stretch itself. Changes ``ends``, one a repetition.
        """
        assert block.died is not None, "a freed block"
        born, died = self.stretches[block.born], self.stretches[block.died - 1]
        if died == self.forward + 1 or (died == self.backward - 1 and born == self.forward):
            later = 1
        elif died == self.backward + 1:
            later = -1
        else:
            return
        stretch = self.forward if died == self.forward + 1 else self.backward
        start, step = self.firsts[self.starts[stretch]], self.steps[stretch]
        # The last unit's backward is the end of its stretch; the others begin theirs.
        before = self.lengths[died] - self.lengths[stretch] if died == self.backward - 1 else 0
        offset = block.died - self.starts[died] - before
        for copy in range(self.times):
            if 0 <= copy + later < self.times:
                # At most the stretch's length.
                ends[copy] = start + step * (copy + later) + offset
