"""Qwen2.5-VL: Qwen2's layer under M-RoPE (temporal, height and width sections of the head).

Without an image grid (random visual embeddings) the three positions of a token agree and equal its
index in the sequence; M-RoPE is then ordinary RoPE.
"""

from typing import Any

import torch
from torch import Tensor, nn

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts import LayerParts, llama_like, rotate_half


class Qwen25VL(Family):
    """Positions carry three rows."""

    def cos_sin(
        self, rotary: nn.Module, like: Tensor, positions: Tensor, layer_type: str
    ) -> tuple[Tensor, Tensor]:
        """As Family.cos_sin; positions may also be [3, S] (temporal, height, width)."""
        rows = positions if positions.ndim == 2 else positions.expand(3, -1)
        return rotary(like, rows.unsqueeze(1))


def parts(layer: Any) -> LayerParts:
    """Releases of transformers differ in where they merge the three sections; both are served."""
    section = layer.self_attn.config.rope_parameters["mrope_section"]

    def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        if cos.ndim == 4:
            cos, sin = _merge(cos, section), _merge(sin, section)
        return rotate_half(x, cos, sin)

    return llama_like(layer, rope)


def _merge(table_3bsk: Tensor, section: list[int]) -> Tensor:
    pieces = table_3bsk.split(section * 2, -1)
    return torch.cat([piece[i % 3] for i, piece in enumerate(pieces)], -1)


FAMILIES.add(
    "qwen2_5_vl",
    Qwen25VL(
        "qwen2_5_vl_text",
        "qwen2_5_vl",
        "Qwen2_5_VL",
        parts,
        config_name="Qwen2_5_VLTextConfig",
        lm_name="Qwen2_5_VLForConditionalGeneration",
    ),
)

MODELS.add(
    "qwen2.5-vl-7b",
    Model(
        "qwen2_5_vl",
        {
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 128000,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [16, 24, 24],
            },
            "tie_word_embeddings": False,
        },
        "config.json of Qwen/Qwen2.5-VL-7B-Instruct",
        tower="qwen2_5_vl",
    ),
)
