"""FIT (arXiv 2305.12689): latents read groups of tokens, and each other.

An image's N tokens form groups of ``group`` consecutive ones; the last may be shorter. Every group
has ``latents`` latents: learned vectors that all groups share, plus a sine code of the group's
number. In each block of ``blocks``, (l)g, l local layers run over the tokens of a group, the
latents read their group's tokens, g global layers run over all latents of the image, and, but
after the last block, tokens read their group's latents. Tokens have learned positions inside a
group. What is left are the latents, in order of their groups, normed; then the adapter. Layers are
pre-LayerNorm attention and a GELU MLP of 4W, with biases; reads norm both sides and have no MLP;
heads are of 64 elements, or of the most that divide W and 64. O(|V|): local pairs in groups, and
the pairs of an image's latents. At scope decoder, where |V| is one run, the latents are O(|V|²).
Gives up: detail beyond the latents; needs training.
"""

import re
from math import ceil, gcd
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.lvlm.reduce import REDUCERS, Reducer, Reduction, TokenGrid
from workbench.lvlm.weights.random import randomise
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.context import Context

HEAD = 64
"""Elements of a head where that divides the width."""


class Attention(nn.Module):
    """Rows [b, n, W] read keys [b, m, W]; all see everything."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = gcd(width, HEAD)
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.o_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, rows: Tensor, keys: Tensor) -> Tensor:
        q, k, v = (
            x.unflatten(-1, (-1, self.head)).transpose(1, 2)
            for x in (self.q_proj(rows), self.k_proj(keys), self.v_proj(keys))
        )
        out: Tensor = self.o_proj(
            F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        )
        return out


class Layer(nn.Module):
    """[b, n, W] -> [b, n, W]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        x = x + self.attention(normed, normed)
        x = x + self.down(F.gelu(self.up(self.mlp_norm(x))))
        return x


class Read(nn.Module):
    """Rows [b, n, W] that read others [b, m, W] -> rows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.other_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width)

    def forward(self, rows: Tensor, other: Tensor) -> Tensor:
        attended: Tensor = rows + self.attention(self.norm(rows), self.other_norm(other))
        return attended


class Block(nn.Module):
    """Local layers, a read, global layers and, but in the last block, a read back."""

    def __init__(self, width: int, num_local: int, num_global: int, last: bool) -> None:
        super().__init__()
        self.local_layers = nn.ModuleList(Layer(width) for _ in range(num_local))
        self.global_layers = nn.ModuleList(Layer(width) for _ in range(num_global))
        self.to_latents = Read(width)
        self.to_tokens = None if last else Read(width)

    def forward(self, groups: list[Tensor], latents: Tensor) -> tuple[list[Tensor], Tensor]:
        """Groups of one size each [b·groups, n, W], and all latents [b, groups, m, W]."""
        batch, _, m, width = latents.shape
        for layer in self.local_layers:
            groups = [layer(x) for x in groups]
        own = split_latents(latents, groups)
        latents = join([self.to_latents(x, y) for x, y in zip(own, groups, strict=True)], batch)
        flat = latents.reshape(batch, -1, width)
        for layer in self.global_layers:
            flat = layer(flat)
        latents = flat.reshape(batch, -1, m, width)
        if self.to_tokens is not None:
            own = split_latents(latents, groups)
            groups = [self.to_tokens(x, y) for x, y in zip(groups, own, strict=True)]
        return groups, latents


def split_latents(latents: Tensor, groups: list[Tensor]) -> list[Tensor]:
    """Latents [b, groups, m, W] of the groups of each size: [b·groups, m, W]."""
    counts = [x.shape[0] // latents.shape[0] for x in groups]
    return [x.flatten(0, 1) for x in latents.split(counts, 1)]


def join(latents: list[Tensor], batch: int) -> Tensor:
    """The inverse of ``split_latents``."""
    images = [x.unflatten(0, (batch, -1)) for x in latents]
    return images[0] if len(images) == 1 else torch.cat(images, 1)


class FITModule(Reduction):
    """[images, N, W] -> [images, latents·⌈N/group⌉, W]."""

    def __init__(self, width: int, sizes: tuple[int, int], blocks: list[tuple[int, int]]) -> None:
        super().__init__()
        group, latents = sizes
        self.positions = nn.Parameter(torch.empty(group, width))
        self.latents = nn.Parameter(torch.empty(latents, width))
        self.blocks = nn.ModuleList(
            Block(width, *layers, last=number == len(blocks) - 1)
            for number, layers in enumerate(blocks)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor, grid: TokenGrid, *beside: Tensor) -> Tensor:
        size, batch = self.positions.shape[0], images.shape[0]
        whole = images.shape[1] // size
        groups = []
        if whole:
            rows = images[:, : whole * size].unflatten(1, (whole, size)) + self.positions
            groups.append(rows.flatten(0, 1))
        tail = images.shape[1] - whole * size
        if tail:
            groups.append(images[:, whole * size :] + self.positions[:tail])
        codes = sine_codes(whole + (tail > 0), images)
        latents = (self.latents + codes[:, None]).expand(batch, -1, -1, -1)
        for block in self.blocks:
            groups, latents = block(groups, latents)
        out: Tensor = self.norm(latents.flatten(1, 2))
        return out


def sine_codes(count: int, like: Tensor) -> Tensor:
    """Sines, then cosines, of the numbers 0 … count − 1 [count, W], in the dtype of ``like``."""
    width = like.shape[-1]
    numbers, half = (
        torch.arange(n, device=like.device, dtype=torch.float64)
        for n in (count, width - width // 2)
    )
    angles = numbers[:, None] * torch.pow(10000.0, -2 * half / width)
    return torch.cat((angles.sin(), angles.cos()[:, : width // 2]), 1).to(like.dtype)


class FIT(Reducer):
    name = "fit"

    @property
    def sizes(self) -> tuple[int, int]:
        """Tokens and latents of a group."""
        return int(self.settings["group"]), int(self.settings["latents"])

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """Local and global layers of every block; raises RequestError for another text."""
        text = str(self.settings["blocks"])
        if not re.fullmatch(r"(\([0-9]{1,3}\)[0-9]{1,3})+", text):
            raise RequestError(
                f"blocks={text:.60}: write local layers in brackets, then global ones, of every "
                "block, such as (2)2(2)2"
            )
        return [(int(x), int(y)) for x, y in re.findall(r"\(([0-9]+)\)([0-9]+)", text)]

    def check(self, cell: Cell) -> None:
        _ = self.blocks

    def tokens(self, grid: TokenGrid) -> int:
        group, latents = self.sizes
        return latents * ceil(grid.tokens / group)

    def build(self, context: "Context", width: int) -> FITModule:
        reader = context.create(lambda: FITModule(width, self.sizes, self.blocks))
        randomise(reader)
        if context.checkpoint() is not None:
            context.flag(f"weights: random in {self.name}")
        return reader

    def flops(self, grid: TokenGrid, width: int, keys: int = 0) -> int:
        (group, m), blocks, w, n = self.sizes, self.blocks, width, grid.tokens
        num_local, num_global = (sum(layers) for layers in zip(*blocks, strict=True))
        outputs, tail = self.tokens(grid), n % group
        inside = n // group * group**2 + tail**2
        reads = 2 * len(blocks) - 1
        return (
            num_local * (24 * w**2 * n + 4 * w * inside)
            + num_global * (24 * w**2 * outputs + 4 * w * outputs**2)
            + reads * (4 * w**2 * (outputs + n) + 4 * w * n * m)
        )

    def parameters(self, width: int) -> int:
        (group, m), blocks, w = self.sizes, self.blocks, width
        layers = sum(map(sum, blocks))
        reads = 2 * len(blocks) - 1
        return layers * (12 * w**2 + 13 * w) + reads * (4 * w**2 + 8 * w) + (group + m + 2) * w


REDUCERS.add("fit", FIT())
