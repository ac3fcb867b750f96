"""Which rows of a sequence a rank has, where several ranks share it (Ulysses, ring, or both).

Of N = u·r ranks, u consecutive ones exchange heads (``ulysses.py``) and r, each u apart, pass keys
and values around (``ring.py``). A decomposed system shares its visual tokens alone: they never
meet each other, and the text stands on every rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from workbench.lvlm.kernels.modelled import tracing
from workbench.lvlm.layout import Layout, Segment, even_shares
from workbench.vocabulary.cell import Cell

Span = tuple[int, int]
"""The first row of a run of the whole sequence, and the first one after it."""


@dataclass(frozen=True)
class Shard(Layout):
    """The rows of one rank: runs of a whole sequence, as a layout of their own.

    A segment's ``start`` is its place in the whole sequence; everything else counts own tokens.
    """

    spans: tuple[Span, ...] = ()
    whole: Layout | None = None
    heads_over: int = 1
    """Ranks that share the heads inside attention."""
    ring: tuple[int, int] = (0, 1)
    """This rank's number among those that pass keys and values around, and how many they are."""
    zigzag: bool = True

    @classmethod
    def of_spans(cls, whole: Layout, spans: Sequence[Span], **more: Any) -> "Shard":
        """The shard of those rows of a layout, in order."""
        visual = sum(
            max(0, min(end, s.start + s.length) - max(begin, s.start))
            for begin, end in spans
            for s in whole.visual_segments
        )
        rows = sum(end - begin for begin, end in spans)
        return cls(visual, rows - visual, whole.pattern, tuple(spans), whole, **more)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        assert self.whole is not None, "a shard of something"
        segments: list[Segment] = []
        used = {True: 0, False: 0}
        for begin, end in self.spans:
            for segment in self.whole.segments:
                start = max(begin, segment.start)
                length = min(end, segment.start + segment.length) - start
                if length > 0:
                    kind = segment.visual
                    segments.append(
                        replace(
                            segment,
                            start=start,
                            offset=used[kind],
                            length=length,
                            visual_before=used[True],
                            text_before=used[False],
                        )
                    )
                    used[kind] += length
        return tuple(segments)

    def rows(self, visual: bool) -> Tensor:
        parts, first = [], 0
        for s in self.segments:
            if s.visual == visual:
                parts.append(torch.arange(first, first + s.length))
            first += s.length
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)

    @property
    def sequence(self) -> Tensor:
        return torch.cat([torch.arange(begin, end) for begin, end in self.spans])

    def join(self, visual: Tensor, text: Tensor) -> Tensor:
        """As of any layout; a stream without a row here still takes part in the backward.

        ZeRO reduces every gradient on every rank: a rank that lacks one would not meet the others.
        """
        joined = super().join(visual, text)
        if self.num_visual and self.num_text:
            return joined
        return torch.cat((joined, visual[:, :0], text[:, :0]), 1)

    def attended(self, window: int | None) -> tuple[int, int]:
        """Pairs of this rank's part of the ring: computed, and allowed by causality.

        Blocks that causality hides whole are not computed. No window reaches a shard.
        """
        assert self.whole is not None, "a shard of something"
        assert window is None or window >= self.whole.length, "check refuses windows that hide"
        rows, (number, count) = self.whole.length, self.ring
        if self.zigzag:
            return (count + 1) * rows**2 // (2 * count**2), rows * (rows + 1) // (2 * count)
        each = rows // count
        return each**2 * (number + 1), each**2 * number + each * (each + 1) // 2

    @property
    def shared_heads(self) -> int:
        return self.heads_over


def copies_text(cell: Cell) -> bool:
    """Whether every rank that shares a sequence has all of its text."""
    from workbench.lvlm.attention import SYSTEMS

    return cell.sharing > 1 and SYSTEMS[cell.attention].ring == "text"


def text_copies(cell: Cell) -> int:
    """The ranks that compute the same text rows, each for its part of the loss."""
    return cell.ring if copies_text(cell) else 1


def ring_spans(rows: int, number: int, count: int, zigzag: bool) -> list[Span]:
    """The rows of one of ``count`` ranks of a ring: chunks n and 2N - 1 - n of 2N, or a run."""
    chunk = rows // (2 * count)
    first = (number, 2 * count - 1 - number) if zigzag else (2 * number, 2 * number + 1)
    return [(chunk * i, chunk * (i + 1)) for i in first]


def part_of(spans: Sequence[Span], number: int, count: int) -> list[Span]:
    """One of ``count`` equal parts of some runs, put end to end."""
    each = sum(end - begin for begin, end in spans) // count
    first, ranges = number * each, []
    for begin, end in spans:
        start, stop = max(first, 0), min(first + each, end - begin)
        if start < stop:
            ranges.append((begin + start, begin + stop))
        first -= end - begin
    return ranges


def shard(cell: Cell, rank: int) -> Shard:
    """The rows of one of the ranks that share a sequence."""
    whole = Layout.of(cell)
    if copies_text(cell):
        spans = []
        for s in whole.segments:
            begin, length = s.start, s.length
            if s.visual:
                shares = even_shares(s.length, cell.ring)
                begin, length = begin + sum(shares[:rank]), shares[rank]
            if length:
                spans.append((begin, begin + length))
        return Shard.of_spans(whole, spans)
    number, inner = divmod(rank, cell.ulysses)
    zigzag = cell.ring_order == "zigzag"
    rows = [(0, whole.length)]
    if cell.ring > 1:
        rows = ring_spans(whole.length, number, cell.ring, zigzag)
    return Shard.of_spans(
        whole,
        part_of(rows, inner, cell.ulysses),
        heads_over=cell.ulysses,
        ring=(number, cell.ring),
        zigzag=zigzag,
    )


def predicted_rank(cell: Cell) -> int:
    """The rank that a prediction is of: the most pairs, then the most text, whose logits cost."""

    def cost(rank: int) -> tuple[int, int, int]:
        own = shard(cell, rank)
        pairs = 0 if copies_text(cell) else own.attended(None)[0]
        return pairs, own.num_text, own.num_visual

    return max(range(cell.sharing), key=cost)


def own_layout(cell: Cell, device: torch.device) -> Layout:
    """The rows of this rank, in a prediction of ``predicted_rank``; all where nobody shares."""
    if cell.sharing == 1:
        return Layout.of(cell)
    if tracing(device):
        return shard(cell, predicted_rank(cell))
    return shard(cell, meeting(cell.sharing).get_sequence_parallel_rank())


@cache
def meeting(count: int) -> Any:
    """deepspeed's module of process groups, set up once: it allows one size a process."""
    from deepspeed.runtime.sequence_parallel import parallel_state_sp

    parallel_state_sp.initialize_sequence_parallel(count)
    return parallel_state_sp


@cache
def groups(ulysses: int, ring: int) -> tuple[Any, Any]:
    """This rank's process groups: of those that share heads, and of those that share rows."""
    import torch.distributed as dist

    everyone = meeting(ulysses * ring).get_sequence_parallel_group()
    if ring == 1 or ulysses == 1:
        return (everyone, None) if ring == 1 else (None, everyone)
    rank, own = dist.get_rank(), [None, None]
    for first in range(0, dist.get_world_size(), ulysses * ring):
        inside = [range(first + p * ulysses, first + (p + 1) * ulysses) for p in range(ring)]
        outside = [range(first + j, first + ulysses * ring, ulysses) for j in range(ulysses)]
        # Every rank makes every group, in the same order.
        for kind, each in enumerate((inside, outside)):
            for ranks in each:
                group = dist.new_group([*ranks])
                if rank in ranks:
                    own[kind] = group
    return own[0], own[1]
