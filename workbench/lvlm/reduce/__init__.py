"""Reducers by name: one file each. They make |V'| visual tokens of |V| before the decoder.

|V| stays what the tower delivers. At scope lvlm a reducer works image by image, between tower and
adapter, or behind an adapter that itself merges tokens. At scope decoder there is no image: |V| is
one run of tokens of the decoder's width. Every attention system then runs on |V'| tokens, whose
positions are indices of the reduced sequence.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from workbench.lvlm.layout import Layout
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.registry import Registry
from workbench.vocabulary.systems import Value, settings_of

if TYPE_CHECKING:
    from workbench.lvlm.context import Context

REDUCERS: "Registry[Reducer]" = Registry("reducer", __name__)


class TokenGrid(NamedTuple):
    """The tokens of one image or frame in row-major order, or a run of tokens without rows."""

    tokens: int
    rows: int | None = None
    columns: int | None = None

    @classmethod
    def of(cls, rows: int, columns: int) -> "TokenGrid":
        """The tokens of an image."""
        return cls(rows * columns, rows, columns)


class Reduction(nn.Module):
    """A reducer's module: called with the images of one grid."""

    def forward(self, images: Tensor, grid: TokenGrid, *beside: Tensor) -> Tensor:
        """[images, N, W] -> [images, R, W'].

        ``beside`` is what the reducer needs, in that order: keys [images, N, K] of a layer of the
        tower, the importance [images, N] of its tokens.
        """
        raise NotImplementedError


class Reducer:
    """One reducer. Costs are of one image or frame, or of one run."""

    name: str
    after_adapter = False
    """Whether it reads the adapter's output at scope lvlm, not the tower's features."""
    keeps_grid = False
    """Whether what is left of an image is again rows and columns."""
    needs: tuple[str, ...] = ()
    """What it reads beside the features: ``keys`` and ``importance`` of the tower's tokens.

    At scope decoder, which has no tower, they are random inputs.
    """
    side_by_side = 1
    """Tokens whose features it lays side by side: what is left is that many times as wide."""
    settings: Mapping[str, Value] = {}
    """The values of its own settings, by name."""

    def check(self, cell: Cell) -> None:
        """Raise RequestError or Unsupported for a cell that it cannot serve."""

    def tokens(self, grid: TokenGrid) -> int:
        """Tokens that are left of an image; raises RequestError where it cannot be reduced."""
        raise NotImplementedError

    def grid(self, grid: TokenGrid) -> TokenGrid:
        """What is left of an image."""
        return TokenGrid(self.tokens(grid))

    def build(self, context: "Context", width: int) -> Reduction:
        """Its module for features of that width, with random weights where it has any."""
        raise NotImplementedError

    def flops(self, grid: TokenGrid, width: int, keys: int = 0) -> int:
        """Matmul FLOPs of a forward, of features of ``width`` and ``keys`` that are so wide."""
        return 0

    def backward_flops(self, grid: TokenGrid, width: int) -> int:
        """Those of a backward, where the features need a gradient: what chooses has none."""
        return 2 * self.flops(grid, width)

    def parameters(self, width: int) -> int:
        """Parameters of the whole reducer."""
        return 0


REDUCERS.take_plugins("workbench.reducers", Reducer)


def reducer_of(cell: Cell) -> Reducer | None:
    """The reducer that a cell names, under its settings; None where it names none."""
    if cell.reduce is None:
        return None
    reducer = copy(REDUCERS[cell.reduce])
    reducer.settings = settings_of("reduce", cell.reduce, cell.settings)
    return reducer


class ReducedTokens(nn.Module):
    """Visual tokens of every sample through a reducer, image by image.

    What the reducer needs beside them is given, or ``looked`` up in a tower that has run.
    """

    def __init__(
        self,
        reduction: Reduction,
        grids: Sequence[TokenGrid],
        looked: Callable[[], Iterable[Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.reduction, self.grids, self.looked = reduction, tuple(grids), looked

    def forward(self, visual: Tensor, *beside: Tensor) -> Tensor:
        """[B, V, W] -> [B, V', W'], reading ``beside`` [B, V, …] where the reducer needs it."""
        if self.looked is not None:
            shape = visual.shape[:2]
            beside = tuple(x.reshape(*shape, *x.shape[2:]) for x in self.looked())
        batch, start, reduced = visual.shape[0], 0, []
        for grid, alike in groupby(self.grids):
            count = len([*alike])
            stop = start + count * grid.tokens
            images, *other = (
                x[:, start:stop].reshape(batch * count, grid.tokens, *x.shape[2:])
                for x in (visual, *beside)
            )
            start = stop
            fewer = self.reduction(images, grid, *other)
            reduced.append(fewer.reshape(batch, count * fewer.shape[1], fewer.shape[2]))
        return reduced[0] if len(reduced) == 1 else torch.cat(reduced, 1)


def runs(layout: Layout) -> tuple[TokenGrid, ...]:
    """The visual tokens of scope decoder: one run, or one a segment whose size is written."""
    sizes = _written(layout)
    if sizes is None:
        return (TokenGrid(layout.num_visual),) if layout.num_visual else ()
    return tuple(TokenGrid(size) for size in sizes)


def reduced_layout(layout: Layout, reducer: Reducer, grids: Sequence[TokenGrid]) -> Layout:
    """The layout of |V'|, split over its segments as |V| is.

    Raises RequestError where a written size cuts an image.
    """
    fewer = [reducer.tokens(grid) for grid in grids]
    sizes = _written(layout)
    if sizes is None:
        return Layout(sum(fewer), layout.num_text, layout.pattern)
    shares, images = [], iter(zip(grids, fewer, strict=True))
    for size in sizes:
        whole = share = 0
        while whole < size:
            grid, tokens = next(images)
            whole, share = whole + grid.tokens, share + tokens
        if whole != size:
            raise RequestError(
                f"layout {layout.pattern}: V{size} cuts an image, and reducer {reducer.name} "
                f"takes whole ones; the nearest are V{whole - grid.tokens} and V{whole}"
            )
        shares.append(share)
    words = iter(shares)
    pattern = ",".join(
        f"V{next(words)}" if part.startswith("V") else part for part in layout.pattern.split(",")
    )
    return Layout(sum(fewer), layout.num_text, pattern)


def reduced_segments(layout: Layout, reducer: Reducer) -> Layout:
    """The layout with every visual segment reduced as one run of tokens."""
    words = [
        f"V{reducer.tokens(TokenGrid(s.length))}" if s.visual else f"T{s.length}"
        for s in layout.segments
    ]
    fewer = sum(int(word[1:]) for word in words if word.startswith("V"))
    return Layout(fewer, layout.num_text, ",".join(words))


def entering_layout(cell: Cell) -> Layout:
    """The layout of what enters a decoder, without images: after the cell's reducer, if any."""
    layout, reducer = Layout.of(cell), reducer_of(cell)
    if reducer is None or cell.scope == "lvlm" or not cell.num_visual:
        return layout
    return reduced_layout(layout, reducer, runs(layout))


def _written(layout: Layout) -> list[int] | None:
    """The sizes of the visual segments where the layout writes them."""
    sizes = [part[1:] for part in layout.pattern.split(",") if part.startswith("V")]
    return [int(size) for size in sizes] if sizes and all(sizes) else None
