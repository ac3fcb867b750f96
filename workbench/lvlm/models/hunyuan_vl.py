"""HunyuanOCR: Llama's form with QK-norm behind RoPE, whose axes are sections of a head (XD-RoPE).

The axes are the token's index, and of an image's tokens column, row and the image's number. Pairs
of a head's numbers are turned by axes of their own, and queries and keys are normed by learned
weights once they are turned, which is not the same as before. In D-Attn's un-rotated T2V both have
that norm and no RoPE: what the layer makes of them at the place where every axis is 0.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.forms import llama_like, rotate_half
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from torch import nn

LEAST = 3
"""Axes of an image's tokens."""


class Hunyuan(Family):
    """Its classes, under names of their own; positions carry a row for each axis."""

    def check(self, name: str, config: Any) -> None:
        section = (config.rope_parameters or {}).get("mrope_section")
        if not isinstance(section, list) or len(section) < LEAST:
            raise RequestError(
                f"model {name!r}: rope_parameters.mrope_section {section!r:.60}: sections of half "
                f"a head for {LEAST} axes or more"
            )

    def norm(self, config: Any) -> "nn.Module":
        norm: nn.Module = self.from_transformers("HunYuanVLRMSNorm")(
            config.hidden_size, eps=config.rms_norm_eps
        )
        return norm

    def rotary(self, config: Any) -> "nn.Module":
        rotary: nn.Module = self.from_transformers("HunYuanVLRotaryEmbedding")(config)
        return rotary

    def cos_sin(
        self, rotary: "nn.Module", like: Tensor, positions: Tensor, layer_type: str
    ) -> tuple[Tensor, Tensor]:
        """As Family.cos_sin; positions may also be [axes, S]."""
        rows = positions if positions.ndim == 2 else positions[None]
        cos, sin = rotary(like, rows.unsqueeze(1))
        return cos, sin


def rotate_wide(x: Tensor, cos_bsk: Tensor, sin_bsk: Tensor) -> Tensor:
    """RoPE over halves in float32 or wider; x is [B, heads, S, K], the tables [B, S, K]."""
    if x.dtype == torch.float64:
        return rotate_half(x, cos_bsk, sin_bsk)
    return rotate_half(x.float(), cos_bsk.float(), sin_bsk.float()).to(x.dtype)


def _parts(layer: Any) -> LayerParts:
    attention = layer.self_attn
    return replace(
        llama_like(layer, rotate_wide),
        q_norm=attention.query_layernorm,
        k_norm=attention.key_layernorm,
        norms_turned=True,
    )


FAMILIES.add(
    "hunyuan_vl",
    Hunyuan(
        "hunyuan_vl_text",
        "hunyuan_vl",
        "HunYuanVLDenseV1",
        _parts,
        config_name="HunYuanVLTextConfig",
        lm_name="HunYuanVLForConditionalGeneration",
    ),
)
MODELS.add(
    "hunyuan-ocr-1b",
    Model(
        "hunyuan_vl",
        {
            "vocab_size": 120818,
            "hidden_size": 1024,
            "intermediate_size": 3584,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {
                "rope_type": "dynamic",
                "rope_theta": 10000.0,
                "alpha": 1000.0,
                "beta_fast": 32,
                "beta_slow": 1,
                "factor": 1.0,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "mrope_section": [16, 16, 16, 16],
            },
            "tie_word_embeddings": True,
        },
        "config.json of tencent/HunyuanOCR, as mlx-vlm's tests quote it with fewer layers; its "
        "24 and 27 layers are written from memory",
        tower="hunyuan_vl",
        around={
            "model_type": "hunyuan_vl",
            "vision_config": {
                "model_type": "hunyuan_vl_vision",
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "num_channels": 3,
                "out_hidden_size": 1024,
                "patch_size": 16,
                "spatial_merge_size": 2,
                "temporal_patch_size": 1,
                "max_image_size": 2048,
            },
            "tie_word_embeddings": True,
        },
    ),
)
