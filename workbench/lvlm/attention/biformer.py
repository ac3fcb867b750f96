"""BiFormer's bi-level routing (arXiv 2303.08810) in V2V: a region reads the regions it likes best.

In each visual segment of n tokens stand ⌊n/R⌋ regions of R = ``region`` consecutive tokens; the
tokens after them are the tail. The affinity of two regions is the product of the means of their
rotated queries and keys, summed over heads, without a gradient. A row sees the ``topk`` regions
that its own likes best (its own is not forced) and the tail; rows of the tail choose by the tail's
mean. O(V·topk·R + (V/R)²); no parameters. Gives up: V2V between distant regions, unless chosen.
The original's depthwise convolution on v needs a grid and is left out.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.grouped import Grouped, GroupedLayer
from workbench.lvlm.context import Context
from workbench.lvlm.parts.marks import unmasked
from workbench.lvlm.place import Place

if TYPE_CHECKING:
    from workbench.lvlm.parts import LayerParts


class BiFormerLayer(GroupedLayer):
    """Regions become the batch of one attention call, over gathered keys."""

    def __init__(
        self, system: "BiFormer", parts: "LayerParts", context: Context, place: Place
    ) -> None:
        super().__init__(system, parts, context, place)
        self.region, self.topk = system.region, system.topk
        if not self.decode and self.segments:
            context.flag("biformer: its depthwise convolution on the values is left out")

    def segment(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        size, count = self.region, q.shape[2] // self.region
        whole = count * size
        if count == 0:
            return self.attend(q, k, v)
        regions = tuple(x[:, :, :whole].unflatten(2, (count, size)) for x in (q, k, v))
        nearest, of_tail = self._choose(q, k, count)
        tails = k[:, :, whole:], v[:, :, whole:]
        keys, values = (
            _gathered(x, nearest, tail) for x, tail in zip(regions[1:], tails, strict=True)
        )
        rows = regions[0].transpose(1, 2).flatten(0, 1)
        out = self.attend(rows, keys, values)
        out = out.unflatten(0, (-1, count)).transpose(1, 2).flatten(2, 3)
        if of_tail is None:
            return out
        keys, values = (
            _gathered(x, of_tail, tail) for x, tail in zip(regions[1:], tails, strict=True)
        )
        return torch.cat((out, self.attend(q[:, :, whole:], keys, values)), 2)

    @torch.no_grad()
    def _choose(self, q: Tensor, k: Tensor, count: int) -> tuple[Tensor, Tensor | None]:
        """The regions that each region chooses, int64 [B, count, topk], and the tail [B, 1, …].

        Queries are summed over the heads that share a key first, which changes nothing else.
        """
        whole, topk = count * self.region, min(self.topk, count)
        groups = k.shape[1]
        summed = q.unflatten(1, (groups, -1)).sum(2)
        keys = _means(k[:, :, :whole], count).transpose(1, 2)  # [B, G·K, count]
        with unmasked():
            affinity = torch.bmm(_means(summed[:, :, :whole], count), keys)
            nearest = affinity.topk(topk, -1).indices
            if whole == q.shape[2]:
                return nearest, None
            tail = _means(summed[:, :, whole:], 1)
            return nearest, torch.bmm(tail, keys).topk(topk, -1).indices


def _means(x: Tensor, count: int) -> Tensor:
    """Means over ``count`` equal runs: [B, G, n, K] -> [B, count, G·K]."""
    return x.unflatten(2, (count, -1)).mean(3).transpose(1, 2).flatten(2)


def _gathered(x: Tensor, chosen: Tensor, tail: Tensor) -> Tensor:
    """The chosen regions and the tail of each row of regions: [B·rows, G, topk·R + tail, K].

    x [B, G, count, R, K], chosen [B, rows, topk], tail [B, G, t, K].
    """
    batch, groups, _, size, width = x.shape
    rows, topk = chosen.shape[1:]
    index = chosen.flatten(1)[:, None, :, None, None].expand(-1, groups, -1, size, width)
    blocks = torch.gather(x, 2, index).unflatten(2, (rows, topk)).transpose(1, 2)
    blocks = blocks.reshape(batch * rows, groups, topk * size, width)
    if not tail.shape[2]:
        return blocks
    beside = tail[:, None].expand(-1, rows, -1, -1, -1).flatten(0, 1)
    return torch.cat((blocks, beside), 2)


class BiFormer(Grouped):
    name = "biformer"
    layer_class = BiFormerLayer

    @property
    def region(self) -> int:
        return int(self.settings["region"])

    @property
    def topk(self) -> int:
        return int(self.settings["topk"])

    def visual_pairs(self, tokens: int, place: Place) -> int:
        count, tail = divmod(tokens, self.region)
        return tokens * (min(self.topk, count) * self.region + tail)

    def routing_flops(self, parts: "LayerParts", tokens: int) -> int:
        count, tail = divmod(tokens, self.region)
        return 2 * parts.num_kv_heads * parts.head_dim * count * (count + (tail > 0))


SYSTEMS.add("biformer", BiFormer())
