"""Mean pooling (LLaVA-OneVision and others): a window of ``side`` by ``side`` tokens becomes one.

Windows are row-major; an odd edge keeps its remainder as smaller windows. A run without rows is
pooled ``side * side`` consecutive tokens at a time.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.lvlm.reduce import REDUCERS, Reducer, Reduction, TokenGrid

if TYPE_CHECKING:
    from workbench.lvlm.context import Context


class MeanOfWindows(Reduction):
    """No parameters."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: Tensor, grid: TokenGrid, *beside: Tensor) -> Tensor:
        """[images, N, W] -> [images, R, W]."""
        if grid.rows is None or grid.columns is None:
            return _pool_run(images, self.side**2)
        x = images.transpose(1, 2).unflatten(2, (grid.rows, grid.columns))
        pooled = F.avg_pool2d(x, self.side, ceil_mode=True, count_include_pad=False)
        return pooled.flatten(2).transpose(1, 2)


def _pool_run(x: Tensor, size: int) -> Tensor:
    whole = x.shape[1] // size * size
    parts = [x[:, :whole].unflatten(1, (-1, size)).mean(2)] if whole else []
    if whole < x.shape[1]:
        parts.append(x[:, whole:].mean(1, keepdim=True))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


class Pool(Reducer):
    name = "pool"
    keeps_grid = True

    @property
    def side(self) -> int:
        return int(self.settings["side"])

    def tokens(self, grid: TokenGrid) -> int:
        return self.grid(grid).tokens

    def grid(self, grid: TokenGrid) -> TokenGrid:
        if grid.rows is None or grid.columns is None:
            return TokenGrid(-(-grid.tokens // self.side**2))
        return TokenGrid.of(-(-grid.rows // self.side), -(-grid.columns // self.side))

    def build(self, context: "Context", width: int) -> MeanOfWindows:
        return MeanOfWindows(self.side)


REDUCERS.add("pool", Pool())
