"""ToMe (arXiv 2210.09461): the most similar tokens of an image merge, two by two, in rounds.

In a round every even token looks for its most similar odd one, by the cosine of the keys of the
tower's last but one layer (the mean over heads, computed once more); the most similar pairs merge,
at most half of the tokens a round, until ⌈keep·N⌉ are left. A merged token is the mean of all its
members, and so are its keys; it stands at the first of them. Before the adapter, image by image:
O(|V|); at scope decoder, where |V| is one run, O(|V|²) and the keys are random. No parameters.
Gives up: detail among tokens that are alike. The tower's own layers stay whole: merging inside
them, as the paper does, is another tower.
"""

from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.lvlm.reduce import REDUCERS, Reducer, Reduction, TokenGrid
from workbench.lvlm.reduce.choosing import first_members
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.lvlm.context import Context


def rounds(tokens: int, left: int) -> "Iterator[tuple[int, int]]":
    """How many tokens each round finds, and how many of them it merges away."""
    while tokens > left:
        merged = min(tokens // 2, tokens - left)
        yield tokens, merged
        tokens -= merged


@torch.no_grad()
def groups_of(keys: Tensor, left: int) -> Tensor:
    """The group [b, N] of every token, numbered by first members; keys are [b, N, K]."""
    batch, count = keys.shape[:2]
    places = torch.arange(count, device=keys.device).expand(batch, -1)
    groups, sizes = places, keys.new_ones(batch, count, 1)
    for tokens, merged in rounds(count, left):
        unit, now = F.normalize(keys, dim=-1), places[:, :tokens]
        best, nearest = torch.matmul(unit[:, ::2], unit[:, 1::2].transpose(1, 2)).max(-1)
        order = best.argsort(dim=1, descending=True, stable=True)[:, :merged]
        into = now.scatter(1, 2 * order, 2 * nearest.gather(1, order) + 1)
        first = first_members(into, now, now + tokens)  # Who has left stands behind all others.
        rank = torch.zeros_like(into).scatter(1, first.argsort(dim=1), now)
        new = rank.gather(1, into)
        keys, sizes = (
            x.new_zeros(batch, tokens - merged, x.shape[2]).scatter_add(
                1, new[..., None].expand_as(x), x
            )
            for x in (keys * sizes, sizes)
        )
        keys = keys / sizes
        groups = new.gather(1, groups)
    return groups


class Merged(Reduction):
    """No parameters."""

    def __init__(self, reducer: Reducer) -> None:
        super().__init__()
        self.reducer = reducer

    def forward(self, images: Tensor, grid: TokenGrid, *beside: Tensor) -> Tensor:
        """[images, N, W] -> [images, ⌈keep·N⌉, W]."""
        (keys,) = beside
        outputs = self.reducer.tokens(grid)
        groups = groups_of(keys, outputs)[..., None]
        sums = images.new_zeros(images.shape[0], outputs, images.shape[2])
        sums = sums.scatter_add(1, groups.expand_as(images), images)
        ones = torch.ones_like(groups, dtype=torch.float32)
        sizes = ones.new_zeros(sums[..., :1].shape).scatter_add(1, groups, ones)
        return sums / sizes.to(sums.dtype)


class ToMe(Reducer):
    name = "tome"
    needs = ("keys",)

    @property
    def keep(self) -> Fraction:
        return Fraction(str(self.settings["keep"]))

    def check(self, cell: Cell) -> None:
        if not self.keep:
            raise RequestError(f"keep=0: {self.name} leaves a share of the tokens above 0")

    def tokens(self, grid: TokenGrid) -> int:
        return ceil(self.keep * grid.tokens)

    def build(self, context: "Context", width: int) -> Merged:
        return Merged(self)

    def flops(self, grid: TokenGrid, width: int, keys: int = 0) -> int:
        pairs = rounds(grid.tokens, self.tokens(grid))
        return sum(2 * (n - n // 2) * (n // 2) * keys for n, _ in pairs)

    def backward_flops(self, grid: TokenGrid, width: int) -> int:
        return 0


REDUCERS.add("tome", ToMe())
