"""VisionZip (arXiv 2412.04467): the tokens with the most attention, and a few for all others.

Of an image, the ``dominant`` most important tokens stay as they are, in order: importance is the
attention that a token receives in the tower's last but one layer, the mean over heads and rows, or
the class token's where there is one. Of the others, ``contextual`` evenly spaced ones take up the
rest: every one chooses the nearest by the cosine of that layer's keys (the mean over heads), which
then is itself plus the mean of those that chose it. Attention and keys are computed once more.
Before the adapter, image by image: O(|V|); at scope decoder, where |V| is one run, importance and
keys are random. No parameters. Gives up: detail of what gets little attention.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.lvlm.layout import take_rows
from workbench.lvlm.reduce import REDUCERS, Reducer, Reduction, TokenGrid
from workbench.lvlm.reduce.choosing import nearest, one_hot, spaced, split_by
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.context import Context


class Zipped(Reduction):
    """No parameters."""

    def __init__(self, dominant: int, contextual: int) -> None:
        super().__init__()
        self.dominant, self.contextual = dominant, contextual

    def forward(self, images: Tensor, grid: TokenGrid, *beside: Tensor) -> Tensor:
        """[images, N, W] -> [images, dominant + contextual, W]."""
        importance, keys = beside
        dominant, rest = split_by(importance, self.dominant)
        targets, merged = spaced(rest, self.contextual)
        tokens = take_rows(images, targets)
        if merged.shape[1]:
            with torch.no_grad():
                targets_of = nearest(take_rows(keys, merged), take_rows(keys, targets))
                hot = one_hot(targets_of, self.contextual, images)
                sizes = hot.sum(-1, keepdim=True).clamp(min=1)
            tokens = tokens + torch.matmul(hot, take_rows(images, merged)) / sizes
        return torch.cat((take_rows(images, dominant), tokens), 1)


class VisionZip(Reducer):
    name = "visionzip"
    needs = ("importance", "keys")

    @property
    def sizes(self) -> tuple[int, int]:
        """Dominant and contextual tokens."""
        return int(self.settings["dominant"]), int(self.settings["contextual"])

    def tokens(self, grid: TokenGrid) -> int:
        dominant, contextual = self.sizes
        if grid.tokens < dominant + contextual:
            raise RequestError(
                f"reduce {self.name}: leaves dominant={dominant} and contextual={contextual} "
                f"tokens of an image, and one here has only {grid.tokens}"
            )
        return dominant + contextual

    def build(self, context: "Context", width: int) -> Zipped:
        return Zipped(*self.sizes)

    def flops(self, grid: TokenGrid, width: int, keys: int = 0) -> int:
        return 2 * (grid.tokens - self.tokens(grid)) * self.sizes[1] * (keys + width)

    def backward_flops(self, grid: TokenGrid, width: int) -> int:
        return self.flops(grid, width)


REDUCERS.add("visionzip", VisionZip())
