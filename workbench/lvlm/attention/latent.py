"""S-Attn of a family whose attention is latent (Multi-head Latent Attention, arXiv 2405.04434).

Keys and values of all heads are made of one latent of a token, and a rotated part that all heads'
keys share. transformers' cache keeps these two, and a decode step makes keys and values of all
cached tokens anew, which is most of its FLOPs. The layers are transformers', untouched.
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from workbench.lvlm.attention import Cached
from workbench.lvlm.attention.s_attn import SAttn, SAttnDecode, SAttnLayer
from workbench.lvlm.caches.narrow import cache_bytes
from workbench.lvlm.context import Context
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.parts import LayerParts

ROWS = 2
"""What a cache has of a token: its latent and the rotated part."""


class LatentDecode(SAttnDecode):
    """The untouched layer over one token and transformers' own cache of latents."""

    def cache(self, name: str, parts: "LayerParts", context: Context, tokens: int) -> Tensor:
        """The latents [B, 1, n, R] as keys, the rotated parts [B, 1, n, K] as values."""
        own = parts.attention
        width = own.kv_lora_rank if name == "keys" else own.qk_rope_head_dim
        return context.random((context.cell.batch, 1, tokens, width))


class LatentLayers(SAttn):
    """Costs of S-Attn on such a family."""

    def check(self, cell: Cell) -> None:
        super().check(cell)
        for field in ("ulysses", "ring"):
            if getattr(cell, field) > 1:
                raise RequestError(
                    f"{field} {getattr(cell, field)}: keys and values of {cell.model} are made of "
                    "latents, which no form of sharing a sequence here passes on; use 1"
                )

    def layer(self, parts: "LayerParts", context: Context, place: Place) -> nn.Module:
        kind = LatentDecode if context.cell.pass_ == "decode" else SAttnLayer
        return kind(parts, context, place)

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        tokens = cell.batch * place.layout.length
        return tokens * (_token_flops(parts) + _expansion_flops(parts))

    def token_flops(self, parts: "LayerParts", place: Place, cached: Cached) -> int:
        """Of all cached tokens, and of the new one, keys and values are made."""
        tokens = cached.visual + cached.text + 1
        return _token_flops(parts) + tokens * _expansion_flops(parts)

    def per_pair(self, parts: "LayerParts", place: Place) -> int:
        return 2 * parts.num_heads * (parts.head_dim + parts.value_dim)

    def cache_elements(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        own = parts.attention
        return int(self._rows(parts, place, cell) * (own.kv_lora_rank + own.qk_rope_head_dim))

    def cache_bytes(self, parts: "LayerParts", place: Place, cell: Cell, item: int) -> int:
        rows = ROWS * self._rows(parts, place, cell)
        return cache_bytes(cell, self.cache_elements(parts, place, cell), rows, item)

    def _rows(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        """Cached tokens, whole batch."""
        cached = self.cached(place, parts.window)
        return cell.batch * (cached.visual + cached.text)


def _token_flops(parts: "LayerParts") -> int:
    """Matmul FLOPs of a token through queries, latents, W_o and MLP."""
    own, d = parts.attention, parts.hidden_size
    wide, rank = parts.num_heads * parts.head_dim, own.q_lora_rank
    queries = d * wide if rank is None else rank * (d + wide)
    latents = d * (own.kv_lora_rank + own.qk_rope_head_dim)
    output = parts.num_heads * parts.value_dim * d
    return int(2 * (queries + latents + output + parts.mlp_elements))


def _expansion_flops(parts: "LayerParts") -> int:
    """Of making keys and values of a token's latent."""
    own = parts.attention
    wide = parts.num_heads * (own.qk_nope_head_dim + own.v_head_dim)
    return int(2 * own.kv_lora_rank * wide)
