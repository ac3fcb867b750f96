"""What every member of a family asks of an allocator, from two or three that were traced.

Members that differ in nothing but sizes make the same requests in the same order, and each
block's size is a polynomial of the number: of first degree, or of second where something grows
with the square.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from workbench.lvlm.kernels.scratch import TILE
from workbench.lvlm.weights import BLOCK
from workbench.probe.counting.trace import Trace
from workbench.probe.counting.tracker import Block, Timeline
from workbench.probe.predicting.caching import SMALL
from workbench.probe.predicting.family import Family
from workbench.probe.predicting.footprint import footprint, setting_of
from workbench.probe.predicting.quick_replay import outcome
from workbench.probe.predicting.replay import Program
from workbench.vocabulary.cell import Cell

Floats = np.ndarray[Any, np.dtype[np.float64]]
ITERATIONS = 2
"""Iterations of a member that is only looked at."""
FEW_CHUNKS = 16
"""Chunks of the largest first member, at least: a quarter of it still has four, and fewer are made
in ways of their own."""
LARGE_MEMBERS = 4
"""At scope lvlm first members are so much smaller: setting up many images takes long."""
SQUARE = 2.5
"""A block that grows so much where the number doubles grows with its square."""
SETUPS = (0, 2**14, 2**16, 2**18, 2**20, 2**62)
"""Bytes below which blocks that are gone when the set-up is over are left out, in turn, until
members are alike: an image more takes some small ones more."""
DRAWN = 4 * BLOCK
"""Bytes by which one that is gone may be off: random values are drawn in whole blocks, and cut."""


@dataclass(frozen=True)
class SizeModel:
    """The requests of every member of a family."""

    numbers: tuple[int, ...]
    traces: tuple[Trace, ...]
    """Those of ``numbers``, whose blocks are not rounded; none where ranks are emulated."""
    program: Program
    sizes: Floats
    """Bytes by member and block of the program."""
    setting: str
    granule: int
    capacity: int
    cell: Callable[[int], Cell]
    least: int = 0
    """Bytes of the smallest blocks of the set-up, gone when it is over, that are modelled."""

    def may_fit(self, number: int) -> bool:
        """Whether that member's blocks alone leave room."""
        return self.program.allocated_peak(self.sizes_of(number)) <= self.capacity

    def fits(self, number: int) -> bool:
        """Whether the allocator finds memory for every request of that member."""
        sizes = self.sizes_of(number).astype(np.int64).tolist()
        program = replace(self.program, sizes=sizes)
        return outcome(program, self.setting, self.capacity, ITERATIONS).fits

    def sizes_of(self, number: int) -> Floats:
        """Bytes of that member's blocks as the device rounds them."""
        whole = np.rint(self._weights(number) @ self.sizes).clip(0, 2.0**62)
        return np.ceil(whole / self.granule) * self.granule

    def trace_of(self, number: int) -> Trace | None:
        """That member's trace as far as memory goes; None where ranks are emulated.

        Of blocks that are gone when the set-up is over it has those of ``least`` bytes and more.
        """
        if not self.traces:
            return None
        sizes = iter(np.rint(self._weights(number) @ self._blocks).astype(np.int64).tolist())
        last = self.traces[-1]
        blocks, made, passing = (_resized(each, sizes) for each in _block_lists(last.timeline))
        timeline = last.timeline._replace(blocks=blocks, made=(*made,), passing=(*passing,))
        return replace(last, timeline=timeline)

    def trace_beside(self, number: int, neighbour: int, traced: Trace | None) -> Trace | None:
        """That member's trace by the one of a ``neighbour``; None where that does not tell it.

        It does where the neighbour's blocks have the bytes that the model tells, or that share of
        them which its last, shorter chunk has of a chunk's tokens: this member's have the share of
        its own last chunk then. Random values on their way are told to a draw. A kernel's own
        temporaries may grow in steps: those that grow are not told by a neighbour on a step.
        """
        told, mine = self.trace_of(neighbour), self.trace_of(number)
        if told is None or mine is None or traced is None or self.least > SMALL:
            return None
        theirs = _without_setup(traced, self.least)
        if not _are_alike(told, theirs):
            return None
        chunks = _last_chunks(self.cell(neighbour), self.cell(number))
        on_step = _is_on_step(self.cell(neighbour))
        lists = zip(*(map(_block_lists, (t.timeline for t in (mine, told, theirs)))), strict=True)
        resized = []
        for (own, expected, there), slack in zip(lists, (0, DRAWN, 0), strict=True):
            sizes = []
            for a, b, c in zip(own, expected, there, strict=True):
                size = _size_beside(a.bytes, b.bytes, c.bytes, slack, chunks)
                stepping = on_step and a.kind == "temporaries" and a.bytes != b.bytes
                if size is None or stepping:
                    return None
                sizes.append(size)
            resized.append(_resized(own, iter(sizes)))
        blocks, made, passing = resized
        timeline = mine.timeline._replace(blocks=blocks, made=(*made,), passing=(*passing,))
        return replace(mine, timeline=timeline)

    @cached_property
    def _blocks(self) -> Floats:
        """Bytes by member and block of the timelines."""
        rows = [[b.bytes for each in _block_lists(t.timeline) for b in each] for t in self.traces]
        return np.array(rows, dtype=np.float64)

    def _weights(self, number: int) -> Floats:
        """Of the members in that number's sizes: Lagrange's."""
        weights = [
            prod((number - other) / (own - other) for other in self.numbers if other != own)
            for own in self.numbers
        ]
        return np.asarray(weights)


def size_model(family: Family, start: int, most: int) -> SizeModel | None:
    """From members at ``start`` and below; further ones where those allocate in other ways.

    None where none are found that ask for the same blocks in the same order.
    """
    cell = family.cell(start)
    first = start if start >= FEW_CHUNKS * (cell.chunk or 0) else 2 * start
    if cell.scope == "lvlm" and not cell.chunk:
        first = max(LARGE_MEMBERS, start // LARGE_MEMBERS)
    for far in (first, 2 * first, 4 * first):
        if far > most or far < LARGE_MEMBERS:
            return None
        model = _through(family, (far // 2, far))
        if model is not None and _has_squares(model):
            model = _through(family, (far // 4, far // 2, far))
        if model is not None:
            return model
    return None


def _has_squares(model: SizeModel) -> bool:
    """Whether some block grows faster than the number, of which the second is twice the first."""
    return bool((model.sizes[1] > SQUARE * np.maximum(model.sizes[0], 1)).any())


def _through(family: Family, numbers: tuple[int, ...]) -> SizeModel | None:
    """The model of these members; None where they are not alike."""
    if family.emulate is not None:
        return _of_programs(family, numbers, [family.footprint(n).program for n in numbers])
    traces = [family.trace(number) for number in numbers]
    for least in SETUPS:
        members = tuple(_without_setup(t, least) for t in traces if t is not None)
        if all(_are_alike(member, members[-1]) for member in members[:-1]):
            programs = [
                footprint(family.cell(n), member, family.allocator, family.capacity).program
                for n, member in zip(numbers, members, strict=True)
            ]
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
    return SizeModel(
        numbers,
        traces,
        programs[-1],
        np.array([program.sizes for program in programs], dtype=np.float64),
        setting_of(family.cell(numbers[-1]), family.allocator),
        family.allocator.granule,
        family.capacity,
        family.cell,
        least,
    )


def _block_lists(timeline: Timeline) -> tuple[Sequence[Block], ...]:
    return timeline.blocks, timeline.made, timeline.passing


def _are_alike(one: Trace, other: Trace) -> bool:
    """Whether both have the same blocks, of the same kinds, born and gone at the same moments.

    Moments of the set-up are not compared: of its blocks, requests tell the order.
    """
    lists = zip(_block_lists(one.timeline), _block_lists(other.timeline), strict=True)
    starts = one.timeline.start, other.timeline.start
    return all(
        len(ours) == len(theirs)
        and all(
            _moments(a, starts[0]) == _moments(b, starts[1]) and a.kind == b.kind
            for a, b in zip(ours, theirs, strict=True)
        )
        for ours, theirs in lists
    )


def _moments(block: Block, start: int) -> tuple[int, int | None]:
    """When a block is born and gone, from the iteration's begin on; 0 before it."""
    died = block.died
    return max(0, block.born - start), None if died is None else max(0, died - start)


def _without_setup(traced: Trace, least: int) -> Trace:
    """The trace without blocks below so many bytes that are gone when the set-up is over."""
    kept = tuple(b for b in traced.timeline.made if b.bytes >= least)
    return replace(traced, timeline=traced.timeline._replace(made=kept))


def _resized(blocks: Sequence[Block], sizes: Iterator[int]) -> list[Block]:
    return [Block(max(0, next(sizes)), b.born, b.died, b.kind) for b in blocks]


def _last_chunks(one: Cell, other: Cell) -> list[tuple[int, int, int]]:
    """(tokens of a chunk, of the first cell's last chunk, of the second's).

    Visual tokens may be what is cut, or the whole sequence; both cells must have as many chunks.
    """
    chunk, found = one.chunk, []
    for text in (0, one.num_text) if chunk else ():
        ends = [cell.num_visual + text - 1 for cell in (one, other)]
        if chunk and ends[0] // chunk == ends[1] // chunk:
            found.append((chunk, ends[0] % chunk + 1, ends[1] % chunk + 1))
    return found


def _is_on_step(cell: Cell) -> bool:
    """Whether its tokens fill a fused kernel's last rows, so that rounded sizes look exact."""
    return any(tokens % TILE == 0 for tokens in (cell.num_visual, cell.num_visual + cell.num_text))


def _size_beside(
    mine: int, told: int, traced: int, slack: int, chunks: list[tuple[int, int, int]]
) -> int | None:
    """Bytes of a block, told as ``mine``, whose neighbour's is told and traced; None: unknown."""
    if abs(told - traced) <= slack:
        return mine
    for chunk, tokens, own_tokens in chunks:
        a_token, rest = divmod(told, chunk)
        if mine == told and not rest and traced == a_token * tokens:
            return a_token * own_tokens
    return None
