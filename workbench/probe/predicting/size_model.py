"""What every member of a family asks of an allocator, from two or three that were traced.

Members that differ in nothing but sizes make the same requests in the same order, and each
block's size is a polynomial of the number: of first degree, or of second where something grows
with the square. Where tokens are worked on in chunks the last one is shorter, and a kernel rounds
them up to whole rows: blocks that grow with those tokens are told by them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from workbench.lvlm.context import TILE as TOKENS_OF_A_TILE
from workbench.lvlm.kernels.scratch import TILE
from workbench.lvlm.weights.random import BLOCK
from workbench.probe.counting.states import ITEM
from workbench.probe.counting.trace import Trace
from workbench.probe.counting.tracker import Block, Timeline
from workbench.probe.predicting.caching import SMALL
from workbench.probe.predicting.family import Family
from workbench.probe.predicting.footprint import rank_program, setting_of
from workbench.probe.predicting.replay import Program
from workbench.vocabulary.cell import Cell

Floats = np.ndarray[Any, np.dtype[np.float64]]
BlocksOf = Callable[[Timeline], Sequence[Block]]
FEW_CHUNKS = 16
"""Chunks of the largest first member, at least: a quarter of it still has four, and fewer are made
in ways of their own."""
LARGE_MEMBERS = 4
"""At scope lvlm first members are so much smaller: setting up many images takes long."""
SHARES = (0.89, 0.37, 0.61)
"""Of a chunk's tokens, those of the first members' last chunks, smallest member first. No two are
to each other as the members, nor near a whole number of a kernel's rows."""
SQUARE = 2.5
"""A block that grows so much where the number doubles grows with its square."""
SETUPS = (0, 2**14, 2**16, 2**18, 2**20, 2**62)
"""Bytes below which blocks that are gone when the set-up is over are left out, in turn, until
members are alike: an image more takes some small ones more."""


@dataclass(frozen=True)
class Sizes:
    """Bytes of blocks, of any member, from those of two or three."""

    family: Family
    numbers: tuple[int, ...]
    rows: Floats
    """Bytes by member and block."""
    granule: int
    """What they are multiples of."""

    def of(self, number: int) -> Floats:
        """Bytes of that member's blocks, in whole bytes and not below 0."""
        weights = [
            prod((number - other) / (own - other) for other in self.numbers if other != own)
            for own in self.numbers
        ]
        sizes = np.asarray(weights) @ self.rows
        for length, by_token in zip(
            _lengths(self.family.cell(number)), self._by_token, strict=True
        ):
            sizes = np.where(by_token > 0, self._rounded(by_token * length), sizes)
        draws = self._drawn * self.family.cell(number).num_visual
        sizes = np.where(draws > 0, np.ceil(draws / self._draw) * self._draw, sizes)
        return np.rint(sizes).clip(0, 2.0**62)

    @property
    def _draw(self) -> int:
        """Bytes of the random values that are drawn at once."""
        return BLOCK * ITEM[self.family.cell(self.numbers[-1]).dtype]

    @cached_property
    def _drawn(self) -> Floats:
        """Bytes a visual token of blocks of random values, drawn as often as needed, and cut; 0
        for others. What is left of each is a block of so many bytes a token.
        """
        tokens = np.array([self.family.cell(n).num_visual for n in self.numbers])[:, None]
        by_token = np.zeros(self.rows.shape[1])
        if len({*tokens.flat}) < len(self.numbers):
            return by_token
        whole = (self.rows % self._draw == 0).all(axis=0)
        each = self.rows / tokens
        fixed = each[-1][(each == each[-1]).all(axis=0) & (each[-1] > 0) & ~whole]
        for rate in np.unique(fixed):
            expected = np.ceil(rate * tokens / self._draw) * self._draw
            by_token[whole & (expected == self.rows).all(axis=0)] = rate
        return by_token

    @cached_property
    def _by_token(self) -> list[Floats]:
        """Bytes a token of blocks that grow with each of ``_lengths``, and 0 for others."""
        by_length = []
        for lengths in zip(*(_lengths(self.family.cell(n)) for n in self.numbers), strict=True):
            each = np.floor(self.rows[-1] / lengths[-1])
            expected = np.stack([self._rounded(each * length) for length in lengths])
            grow = (expected == self.rows).all(axis=0) & (len({*lengths}) == len(lengths))
            by_length.append(np.where(grow, each, 0.0))
        return by_length

    def _rounded(self, sizes: Floats) -> Floats:
        return np.ceil(sizes / self.granule) * self.granule


@dataclass(frozen=True)
class SizeModel:
    """The requests of every member of a family."""

    family: Family
    numbers: tuple[int, ...]
    traces: tuple[Trace, ...]
    """Those of ``numbers``, whose blocks are not rounded; none where ranks are emulated."""
    program: Program
    sizes: Sizes
    """Those of the program's blocks."""
    least: int = 0
    """Bytes of the smallest blocks of the set-up, gone when it is over, that are modelled."""

    def may_fit(self, number: int) -> bool:
        """Whether that member's blocks alone leave room."""
        return self.program.allocated_peak(self.sizes_of(number)) <= self.family.capacity

    def fits(self, number: int) -> bool:
        """Whether the allocator finds memory for every request of that member."""
        sizes = self.sizes_of(number).astype(np.int64).tolist()
        family = self.family
        setting = setting_of(family.cell(number), family.allocator)
        return family.replay(replace(self.program, sizes=sizes), setting, family.capacity).fits

    def sizes_of(self, number: int) -> Floats:
        """Bytes of that member's blocks as the device rounds them."""
        granule = self.family.allocator.granule
        return np.ceil(self.sizes.of(number) / granule) * granule

    def trace_of(self, number: int) -> Trace | None:
        """That member's trace as far as memory goes; None where ranks are emulated.

        Of blocks that are gone when the set-up is over it has those of ``least`` bytes and more.
        """
        if not self.traces:
            return None
        return _with_bytes(self.traces[-1], self._blocks.of(number).astype(np.int64).tolist())

    def trace_beside(self, number: int, neighbour: int, traced: Trace | None) -> Trace | None:
        """That member's trace by the one of a ``neighbour``; None where that does not tell it.

        It does where the neighbour's blocks have the bytes that the model tells. A kernel's own
        temporaries may grow in steps: those that grow are not told by a neighbour on a step. Of
        what making it takes and lets go, a neighbour may have other blocks where that does not
        matter: the others alone leave no room.
        """
        theirs, mine = self.trace_of(neighbour), self.trace_of(number)
        if theirs is None or mine is None or traced is None:
            return None
        # A block that is as small in both members is left out of both.
        expected, there = (_without_setup(t, self.least).timeline for t in (theirs, traced))
        if not _are_equal(expected, there, _running):
            return None
        if _looks_exact(self.family.cell(neighbour), self.family.cell(number)) and any(
            a.kind == "temporaries" and a.bytes != b.bytes
            for a, b in zip(mine.timeline.blocks, expected.blocks, strict=True)
        ):
            return None
        if self.least <= SMALL and _are_equal(expected, there, _made):
            # The smaller ones are the neighbour's.
            pairs = zip(mine.timeline.made, theirs.timeline.made, strict=True)
            own = iter([a.bytes for a, b in pairs if b.bytes >= self.least])
            temporaries = [
                next(own) if b.bytes >= self.least else b.bytes for b in traced.timeline.made
            ]
            return _with_bytes(traced, [b.bytes for b in _running(mine.timeline)] + temporaries)
        return None if self._runs_in_capacity(number) else mine

    def _runs_in_capacity(self, number: int) -> bool:
        """Whether that member's blocks leave room, but for those that making it lets go."""
        sizes = self.sizes_of(number)
        sizes[[~request for request in self.program.setup if request < 0]] = 0
        return self.program.allocated_peak(sizes) <= self.family.capacity

    @cached_property
    def _blocks(self) -> Sizes:
        """Those of the timelines' blocks."""
        times = [t.timeline for t in self.traces]
        rows = [[b.bytes for b in (*_running(time), *_made(time))] for time in times]
        return Sizes(self.family, self.numbers, np.array(rows, dtype=np.float64), 1)


def size_model(family: Family, start: int, most: int) -> SizeModel | None:
    """From members at ``start`` and below; further ones where those allocate in other ways.

    None where none are found that ask for the same blocks in the same order.
    """
    cell = family.cell(start)
    first = start if start >= FEW_CHUNKS * (_chunk(cell) or 0) else 2 * start
    if cell.scope == "lvlm" and not cell.chunk:
        first = max(LARGE_MEMBERS, start // LARGE_MEMBERS)
    for far in (first, 2 * first, 4 * first):
        if far > most or far < LARGE_MEMBERS:
            return None
        quarter, half, whole = _uneven(family, (far // 4, far // 2, far))
        model = _through(family, (half, whole))
        if model is not None and _has_squares(model):
            model = _through(family, (quarter, half, whole))
        if model is not None:
            return model
    return None


def _has_squares(model: SizeModel) -> bool:
    """Whether some block grows faster than the number, of which the second is twice the first."""
    first, second = model.sizes.rows
    return bool((second > SQUARE * np.maximum(first, 1)).any())


def _uneven(family: Family, numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers near these that tell ``_lengths`` from all tokens: each ends a chunk in another way.

    Only where the number counts tokens: those of whole images are as they are.
    """
    if [family.cell(n).num_visual for n in (1, 2)] != [1, 2]:
        return numbers
    chunk = _chunk(family.cell(1)) or TILE
    if chunk < len(SHARES):
        return numbers
    return tuple(
        n - n % chunk + round(share * chunk) for n, share in zip(numbers, SHARES, strict=True)
    )


def _through(family: Family, numbers: tuple[int, ...]) -> SizeModel | None:
    """The model of these members; None where they are not alike."""
    if family.emulate is not None:
        return _of_programs(family, numbers, [family.footprint(n).program for n in numbers])
    traces = [family.trace(number) for number in numbers]
    for least in SETUPS:
        members = tuple(_without_setup(t, least) for t in traces if t is not None)
        if all(
            _are_alike(member.timeline, members[-1].timeline, blocks_of)
            for member in members[:-1]
            for blocks_of in (_running, _made)
        ):
            cells = map(family.cell, numbers)
            programs = [rank_program(*pair) for pair in zip(cells, members, strict=True)]
            return _of_programs(family, numbers, programs, members, least)
    return None


def _of_programs(
    family: Family,
    numbers: tuple[int, ...],
    programs: Sequence[Program],
    traces: tuple[Trace, ...] = (),
    least: int = 0,
) -> SizeModel | None:
    if not all(program.is_like(programs[-1]) for program in programs[:-1]):
        return None
    rows = np.array([program.sizes for program in programs], dtype=np.float64)
    granule = 1 if traces else family.allocator.granule
    return SizeModel(
        family, numbers, traces, programs[-1], Sizes(family, numbers, rows, granule), least
    )


def _running(timeline: Timeline) -> list[Block]:
    """Blocks of the iteration, and of what is held throughout."""
    return [*timeline.blocks, *timeline.passing]


def _made(timeline: Timeline) -> Sequence[Block]:
    """Blocks that making the workload takes and lets go."""
    return timeline.made


def _are_alike(one: Timeline, other: Timeline, blocks_of: BlocksOf) -> bool:
    """Whether both have the same blocks, of the same kinds, born and gone at the same moments.

    Moments of the set-up are not compared: of its blocks, requests tell the order.
    """
    return _lives(one, blocks_of) == _lives(other, blocks_of)


def _are_equal(one: Timeline, other: Timeline, blocks_of: BlocksOf) -> bool:
    """Whether both have the same blocks, of the same bytes."""
    return _are_alike(one, other, blocks_of) and all(
        a.bytes == b.bytes for a, b in zip(blocks_of(one), blocks_of(other), strict=True)
    )


def _lives(timeline: Timeline, blocks_of: BlocksOf) -> list[tuple[int, int | None, str]]:
    """When each block is born and gone, from the iteration's begin on (0 before it); its kind."""
    start = timeline.start
    return [
        (
            b.born - start if b.born > start else 0,
            None if b.died is None else b.died - start if b.died > start else 0,
            b.kind,
        )
        for b in blocks_of(timeline)
    ]


def _without_setup(traced: Trace, least: int) -> Trace:
    """The trace without blocks below so many bytes that are gone when the set-up is over."""
    blocks = tuple(b for b in traced.timeline.made if b.bytes >= least)
    return replace(traced, timeline=traced.timeline._replace(made=blocks))


def _with_bytes(traced: Trace, sizes: Iterable[int]) -> Trace:
    """The trace with other bytes of its blocks, in the order of ``_running`` and ``_made``."""
    timeline, of_blocks = traced.timeline, iter(sizes)
    blocks, passing, temporaries = (
        _resized(each, of_blocks) for each in (timeline.blocks, timeline.passing, timeline.made)
    )
    timeline = timeline._replace(blocks=blocks, passing=(*passing,), made=(*temporaries,))
    return replace(traced, timeline=timeline)


def _resized(blocks: Sequence[Block], sizes: Iterator[int]) -> list[Block]:
    return [Block(max(0, next(sizes)), b.born, b.died, b.kind) for b in blocks]


def _chunk(cell: Cell) -> int | None:
    """Tokens that are worked on at once, but for the last ones; None where it is all of them."""
    return cell.chunk or (TOKENS_OF_A_TILE if cell.tiled else None)


def _lengths(cell: Cell) -> tuple[int, ...]:
    """Tokens that some blocks grow with: of visual ones and of the whole sequence, those of the
    last chunk, and all of them in whole rows of a kernel.
    """
    both = cell.num_visual, cell.num_visual + cell.num_text
    chunk = _chunk(cell)
    last = [(length - 1) % chunk + 1 for length in both] if chunk else []
    return (*last, *(-(-length // TILE) * TILE for length in both))


def _looks_exact(one: Cell, other: Cell) -> bool:
    """Whether tokens of the first cell fill a fused kernel's last rows, and the other's do not.

    What the kernel rounds to whole rows is told as if it did not, and the first does not show it.
    """
    lengths = ((c.num_visual, c.num_visual + c.num_text) for c in (one, other))
    return any(not a % TILE and b % TILE for a, b in zip(*lengths, strict=True))
