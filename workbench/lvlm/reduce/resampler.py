"""A Perceiver resampler (arXiv 2204.14198; Idefics2, 2405.02246): R latents read an image.

After the adapter, at the decoder's width D. In each of ``depth`` layers the latents, normed, query
[tokens; latents], each with a norm of its own: RMSNorm, grouped heads, no biases, no positions;
then a gated MLP of 4D. A last norm gives ``queries`` tokens an image, whatever its size: O(|V|).
Gives up: detail beyond the latents, and the order of the tokens; needs training. Depth and widths
are Idefics2's; Flamingo, Qwen-VL and BLIP-2 differ in them, not in order.
"""

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

EPS = 1e-6
"""Of the norms: Idefics2's rms_norm_eps."""


class ResamplerLayer(nn.Module):
    """Latents [b, R, D] and tokens [b, N, D] -> latents."""

    def __init__(self, width: int, heads: int, kv_heads: int, head: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head = heads, kv_heads, head
        self.latents_norm = nn.RMSNorm(width, eps=EPS)
        self.tokens_norm = nn.RMSNorm(width, eps=EPS)
        self.mlp_norm = nn.RMSNorm(width, eps=EPS)
        self.q_proj = nn.Linear(width, heads * head, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * head, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * head, bias=False)
        self.o_proj = nn.Linear(heads * head, width, bias=False)
        self.gate_proj = nn.Linear(width, 4 * width, bias=False)
        self.up_proj = nn.Linear(width, 4 * width, bias=False)
        self.down_proj = nn.Linear(4 * width, width, bias=False)

    def forward(self, latents: Tensor, tokens: Tensor) -> Tensor:
        normed = self.latents_norm(latents)
        both = torch.cat((self.tokens_norm(tokens), normed), 1)
        q = self._by_head(self.q_proj(normed), self.heads)
        k = self._by_head(self.k_proj(both), self.kv_heads)
        v = self._by_head(self.v_proj(both), self.kv_heads)
        out = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.heads != self.kv_heads)
        latents = latents + self.o_proj(out.transpose(1, 2).flatten(2))
        x = self.mlp_norm(latents)
        return latents + self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))

    def _by_head(self, x: Tensor, heads: int) -> Tensor:
        return x.unflatten(-1, (heads, self.head)).transpose(1, 2)


class PerceiverResampler(Reduction):
    """[images, N, D] -> [images, R, D]."""

    def __init__(self, width: int, queries: int, layers: int, sizes: tuple[int, int, int]) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.empty(queries, width))
        self.layers = nn.ModuleList(ResamplerLayer(width, *sizes) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=EPS)

    def forward(self, images: Tensor, grid: TokenGrid, *beside: Tensor) -> Tensor:
        latents = self.latents.expand(images.shape[0], -1, -1)
        for layer in self.layers:
            latents = layer(latents, images)
        return self.norm(latents)


class Resampler(Reducer):
    name = "resampler"
    after_adapter = True

    def check(self, cell: Cell) -> None:
        heads, shared = self._setting("heads"), self._setting("kv_heads")
        if heads % shared:
            raise RequestError(
                f"kv_heads={shared}: does not divide the {heads} heads of resampler"
            )

    def _setting(self, name: str) -> int:
        return int(self.settings[name])

    def tokens(self, grid: TokenGrid) -> int:
        return self._setting("queries")

    def build(self, context: "Context", width: int) -> PerceiverResampler:
        sizes = self._setting("heads"), self._setting("kv_heads"), self._setting("head")
        queries, depth = self._setting("queries"), self._setting("depth")
        resampler = context.create(lambda: PerceiverResampler(width, queries, depth, sizes))
        randomise(resampler)
        if context.checkpoint() is not None:
            context.flag("weights: random in the resampler")
        return resampler

    def flops(self, grid: TokenGrid, width: int, keys: int = 0) -> int:
        wide, narrow = self._widths
        queries, num_keys = self._setting("queries"), grid.tokens + self._setting("queries")
        of_latents = queries * 2 * (2 * width * wide + 12 * width**2)
        pairs = 4 * wide * queries * num_keys
        return self._setting("depth") * (of_latents + num_keys * 4 * width * narrow + pairs)

    def parameters(self, width: int) -> int:
        wide, narrow = self._widths
        layer = 2 * width * wide + 2 * width * narrow + 12 * width**2 + 3 * width
        return self._setting("queries") * width + self._setting("depth") * layer + width

    @property
    def _widths(self) -> tuple[int, int]:
        """Width of all query heads, and of all key heads."""
        head = self._setting("head")
        return self._setting("heads") * head, self._setting("kv_heads") * head


REDUCERS.add("resampler", Resampler())
