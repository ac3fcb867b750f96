"""Parts of a layer whose attention is latent (Multi-head Latent Attention, arXiv 2405.04434).

Keys and values of all heads are made of one latent of a token, of R numbers, and a rotated part,
which all heads' keys share. A head of queries and keys is a part without positions, then the
rotated one; a head of values may be narrower. transformers' cache keeps latents and rotated parts,
and a decode step makes keys and values of all cached tokens anew, which is most of its FLOPs.
Caches of other systems hold the same, the rotated part as its branch needs it: D-Attn's visual
tokens have it un-rotated.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.forms import rotate_half


@dataclass(frozen=True)
class LatentParts(LayerParts):
    """Every query head has keys and values of its own: H = G, and there is no gate.

    Shapes beside those of ``parts``: R width of a latent, P of the rotated part, W of a head of
    values.
    """

    @property
    def value_dim(self) -> int:
        return int(self.attention.v_head_dim)

    @property
    def query_elements(self) -> int:
        rank, wide = self.attention.q_lora_rank, self.num_heads * self.head_dim
        return self.hidden_size * wide if rank is None else rank * (self.hidden_size + wide)

    @property
    def key_elements(self) -> int:
        """As many as of keys and values: one matrix makes both."""
        return self.key_value_elements

    @property
    def key_value_elements(self) -> int:
        own = self.attention
        narrow = own.kv_lora_rank + own.qk_rope_head_dim
        return self.hidden_size * narrow + self.expansion_elements

    @property
    def expansion_elements(self) -> int:
        own = self.attention
        heads: int = self.num_heads * (own.qk_nope_head_dim + own.v_head_dim)
        return heads * int(own.kv_lora_rank)

    @property
    def entry_shapes(self) -> dict[str, tuple[int, int]]:
        """As transformers' cache has it: the latent as keys, the rotated part as values."""
        own = self.attention
        return {"keys": (1, own.kv_lora_rank), "values": (1, own.qk_rope_head_dim)}

    @property
    def key_value_modules(self) -> tuple[nn.Module, ...]:
        own = self.attention
        return own.kv_a_proj_with_mqa, own.kv_a_layernorm, own.kv_b_proj

    def project_queries(self, x_bsd: Tensor) -> Tensor:
        own = self.attention
        if own.q_lora_rank is None:
            return super().project_queries(x_bsd)
        queries: Tensor = own.q_b_proj(own.q_a_layernorm(own.q_a_proj(x_bsd)))
        return queries

    def key(self, x_bsd: Tensor) -> Tensor:
        """Un-rotated keys [B, H, S, K]; the values that are made beside them are dropped."""
        return self.key_value(x_bsd)[0]

    def value(self, x_bsd: Tensor) -> Tensor:
        """Values [B, H, S, W]; the keys that are made beside them are dropped."""
        return self.key_value(x_bsd)[1]

    def key_value(self, x_bsd: Tensor) -> tuple[Tensor, Tensor]:
        """Un-rotated keys [B, H, S, K] and values [B, H, S, W]."""
        return self.expand(self.entries(x_bsd))

    def entries(self, x_bsd: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B, 1, S, R] and parts [B, 1, S, P] that are to be rotated."""
        own = self.attention
        latent, part = own.kv_a_proj_with_mqa(x_bsd).split(
            (own.kv_lora_rank, own.qk_rope_head_dim), -1
        )
        return own.kv_a_layernorm(latent).unsqueeze(1), part.unsqueeze(1)

    def rotate(
        self, entries: tuple[Tensor, Tensor], cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor]:
        return entries[0], self.rope(entries[1], cos, sin)

    def expand(self, entries: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        own, (latent, part) = self.attention, entries
        heads = own.kv_b_proj(latent.squeeze(1)).unflatten(-1, (self.num_heads, -1))
        key, value = heads.transpose(1, 2).split((own.qk_nope_head_dim, own.v_head_dim), -1)
        return torch.cat((key, part.expand(-1, self.num_heads, -1, -1)), -1), value


def turn_last(x: Tensor, cos_bsp: Tensor, sin_bsp: Tensor, neighbours: bool) -> Tensor:
    """RoPE of the last P numbers of heads, or of the rotated part alone; x is [B, heads, S, K].

    ``neighbours`` takes pairs (0, 1), (2, 3), …, and leaves their first numbers before their
    second ones, in queries and keys alike, as transformers does.
    """
    size = cos_bsp.shape[-1]
    part = x[..., x.shape[-1] - size :]
    if neighbours:
        part = torch.cat((part[..., ::2], part[..., 1::2]), -1)
    turned = rotate_half(part, cos_bsp, sin_bsp)
    return turned if x.shape[-1] == size else torch.cat((x[..., :-size], turned), -1)
