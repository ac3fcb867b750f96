"""VMTC (arXiv 2411.15453): important tokens stay, the others become the means of their clusters.

Of an image's N tokens, the ⌈keep·N⌉ most important stay: importance is the attention that a token
receives in the tower's last but one layer, the mean over heads and rows, or the class token's
where there is one, computed once more. The others fall into ⌈clusters·N⌉ clusters by k-means under
the cosine: centres are evenly spaced tokens first, then means of raw features, ``iterations``
times; an empty cluster keeps its centre. What is left stands at its first members, an empty
cluster where its centre began. Before the adapter, image by image: O(|V|); at scope decoder, where
|V| is one run, O(|V|²) and importance is random. No parameters; the choice has no gradient. Gives
up: detail inside a cluster. Shares, clusters and rounds could not be read in the paper: the
defaults are ours.
"""

from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.lvlm.layout import take_rows
from workbench.lvlm.reduce import REDUCERS, Reducer, Reduction, TokenGrid
from workbench.lvlm.reduce.choosing import first_members, nearest, one_hot, spaced, split_by
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.context import Context


class Clustered(Reduction):
    """No parameters."""

    def __init__(self, reducer: "VMTC") -> None:
        super().__init__()
        self.reducer = reducer

    def forward(self, images: Tensor, grid: TokenGrid, *beside: Tensor) -> Tensor:
        """[images, N, W] -> [images, R, W]."""
        (importance,) = beside
        dominant, clusters = self.reducer.sizes(grid)
        best, rest = split_by(importance, dominant)
        if not clusters:
            return take_rows(images, best)
        others, seeds = take_rows(images, rest), spaced(rest, clusters)[0]
        groups, centres = self._cluster(others.detach(), clusters)
        with torch.no_grad():
            hot = one_hot(groups, clusters, others)
            sizes = hot.sum(-1, keepdim=True)
            first = first_members(groups, rest, seeds)
            order = torch.cat((best, first), 1).argsort(dim=1, stable=True)
        means = torch.where(sizes > 0, torch.matmul(hot, others) / sizes.clamp(min=1), centres)
        return take_rows(torch.cat((take_rows(images, best), means), 1), order)

    @torch.no_grad()
    def _cluster(self, others: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
        """The cluster [b, m] of every token [b, m, W], and the last centres [b, c, W]."""
        centres = spaced(others, clusters)[0]
        for _ in range(int(self.reducer.settings["iterations"])):
            hot = one_hot(nearest(others, centres), clusters, others)
            sizes = hot.sum(-1, keepdim=True)
            centres = torch.where(
                sizes > 0, torch.matmul(hot, others) / sizes.clamp(min=1), centres
            )
        return nearest(others, centres), centres


class VMTC(Reducer):
    name = "vmtc"
    needs = ("importance",)

    def sizes(self, grid: TokenGrid) -> tuple[int, int]:
        """Tokens that stay, and clusters of the others."""
        keep, clusters = (Fraction(str(self.settings[name])) for name in ("keep", "clusters"))
        dominant = ceil(keep * grid.tokens)
        return dominant, min(ceil(clusters * grid.tokens), grid.tokens - dominant)

    def tokens(self, grid: TokenGrid) -> int:
        outputs = sum(self.sizes(grid))
        if not outputs:
            raise RequestError(
                f"keep=0, clusters=0: {self.name} leaves nothing; raise one of them"
            )
        return outputs

    def build(self, context: "Context", width: int) -> Clustered:
        context.flag(
            f"{self.name}: the paper's shares, clusters and rounds could not be read; the "
            "defaults are this workbench's"
        )
        return Clustered(self)

    def flops(self, grid: TokenGrid, width: int, keys: int = 0) -> int:
        return (int(self.settings["iterations"]) + 1) * 2 * self.backward_flops(grid, width)

    def backward_flops(self, grid: TokenGrid, width: int) -> int:
        """Of the last means alone."""
        dominant, clusters = self.sizes(grid)
        return 2 * (grid.tokens - dominant) * clusters * width


REDUCERS.add("vmtc", VMTC())
