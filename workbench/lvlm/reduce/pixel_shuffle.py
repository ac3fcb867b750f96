"""Pixel shuffle (InternVL; Idefics3, arXiv 2408.12637): a window's features side by side.

The ``side`` by ``side`` tokens of a window become one of side² times the width, row by row, before
the adapter, whose first layer (and norm, if it has one) is that much wider: its weights there are
new. Windows are row-major and whole: ``side`` divides rows and columns. O(|V|), no FLOPs of its
own. Gives up: nothing but what the adapter does not learn; needs training. Refused at scope
decoder, where no adapter narrows the tokens again, and where the adapter itself merges tokens.
"""

from typing import TYPE_CHECKING

from torch import Tensor

from workbench.lvlm.reduce import REDUCERS, Reducer, Reduction, TokenGrid
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.context import Context


class Shuffled(Reduction):
    """No parameters."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: Tensor, grid: TokenGrid, *beside: Tensor) -> Tensor:
        """[images, N, W] -> [images, N/side², side²·W]."""
        assert grid.rows is not None, "only images are shuffled"
        windows = images.unflatten(1, (grid.rows // self.side, self.side, -1, self.side))
        return windows.transpose(2, 3).flatten(3).flatten(1, 2)


class PixelShuffle(Reducer):
    name = "pixel_shuffle"
    keeps_grid = True

    @property
    def side(self) -> int:
        return int(self.settings["side"])

    @property
    def side_by_side(self) -> int:  # type: ignore[override]
        return self.side**2

    def check(self, cell: Cell) -> None:
        if cell.scope != "lvlm":
            raise RequestError(
                f"reduce {self.name}: makes tokens {self.side_by_side} times as wide, which only "
                f"an adapter brings back, and scope {cell.scope} has none; use scope lvlm"
            )

    def tokens(self, grid: TokenGrid) -> int:
        return self.grid(grid).tokens

    def grid(self, grid: TokenGrid) -> TokenGrid:
        if grid.rows is None or grid.columns is None:
            raise RequestError(
                f"reduce {self.name}: needs images whose tokens lie in rows and columns, and here "
                "they do not (scope decoder, a class token, newlines or tiles); take pool"
            )
        if grid.rows % self.side or grid.columns % self.side:
            least = min(grid.rows, grid.columns)
            whole = [n for n in range(1, least + 1) if not (grid.rows % n or grid.columns % n)]
            raise RequestError(
                f"side={self.side}: does not divide the {grid.rows} by {grid.columns} tokens of "
                f"an image, which {self.name} takes in whole windows; those that divide are "
                f"{', '.join(map(str, whole))}"
            )
        return TokenGrid.of(grid.rows // self.side, grid.columns // self.side)

    def build(self, context: "Context", width: int) -> Shuffled:
        return Shuffled(self.side)


REDUCERS.add("pixel_shuffle", PixelShuffle())
