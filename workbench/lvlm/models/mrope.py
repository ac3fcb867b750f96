"""M-RoPE, Qwen's rotary embedding of three positions: temporal, height and width.

Without an image grid (random visual embeddings) the three positions of a token agree and equal its
index in the sequence; M-RoPE is then ordinary RoPE.
"""

from typing import Any

import torch
from torch import Tensor, nn

from workbench.lvlm.models import Family
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.forms import llama_like, rotate_half


class MRope(Family):
    """Positions carry three rows."""

    def cos_sin(
        self, rotary: nn.Module, like: Tensor, positions: Tensor, layer_type: str
    ) -> tuple[Tensor, Tensor]:
        """As Family.cos_sin; positions may also be [3, S] (temporal, height, width)."""
        rows = positions if positions.ndim == 2 else positions.expand(3, -1)
        return rotary(like, rows.unsqueeze(1))


def sectioned(layer: Any) -> LayerParts:
    """Parts of Qwen2-VL's and Qwen2.5-VL's layer: each position turns a section of the head.

    Releases of transformers differ in where they merge the sections; both are served.
    """
    section = layer.self_attn.config.rope_parameters["mrope_section"]

    def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        if cos.ndim == 4:
            cos, sin = _merge(cos, section), _merge(sin, section)
        return rotate_half(x, cos, sin)

    return llama_like(layer, rope)


def _merge(table_3bsk: Tensor, section: list[int]) -> Tensor:
    pieces = table_3bsk.split(section * 2, -1)
    return torch.cat([piece[i % 3] for i, piece in enumerate(pieces)], -1)
