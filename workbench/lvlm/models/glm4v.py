"""GLM-4.1V: four norms; M-RoPE turns pairs of neighbours in the first half of a head alone."""

from typing import TYPE_CHECKING, Any

import torch

from workbench.lvlm.models import FAMILIES, MODELS, Model
from workbench.lvlm.models.mrope import MRope
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.forms import sandwiched

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedConfig


class Glm4v(MRope):
    """The norms have no name of the text model's own."""

    def norm(self, config: "PreTrainedConfig") -> "nn.Module":
        return self.from_transformers("Glm4vRMSNorm")(config.hidden_size, eps=config.rms_norm_eps)


def rotate_pairs(x: "Tensor", cos_bsr: "Tensor", sin_bsr: "Tensor") -> "Tensor":
    """RoPE over neighbours of the first R of a head's values; x is [B, heads, S, K]."""
    size = cos_bsr.shape[-1]
    turning, rest = x[..., :size], x[..., size:]
    turned = torch.stack((-turning[..., 1::2], turning[..., 0::2]), -1).flatten(-2)
    rotated = turning * cos_bsr.unsqueeze(1) + turned * sin_bsr.unsqueeze(1)
    return torch.cat((rotated, rest), -1)


def glm_like(layer: Any) -> LayerParts:
    """Parts of a layer with norms before and after attention and MLP, under GLM's names."""
    return sandwiched(
        layer,
        rotate_pairs,
        layer.post_self_attn_layernorm,
        layer.post_attention_layernorm,
        layer.post_mlp_layernorm,
    )


FAMILIES.add(
    "glm4v",
    Glm4v(
        "glm4v_text",
        "glm4v",
        "Glm4vText",
        glm_like,
        lm_name="Glm4vForConditionalGeneration",
    ),
)

MODELS.add(
    "glm-4.1v-9b",
    Model(
        "glm4v",
        {
            "vocab_size": 151552,
            "hidden_size": 4096,
            "intermediate_size": 13696,
            "num_hidden_layers": 40,
            "num_attention_heads": 32,
            "num_key_value_heads": 2,
            "max_position_embeddings": 65536,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": [8, 12, 12],
            },
            "tie_word_embeddings": False,
        },
        "config.json of zai-org/GLM-4.1V-9B-Thinking",
        tower="glm4v",
        around={
            "model_type": "glm4v",
            "vision_config": {
                "model_type": "glm4v_vision",
                "depth": 24,
                "hidden_size": 1536,
                "intermediate_size": 13696,
                "num_heads": 12,
                "in_channels": 3,
                "image_size": 336,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "out_hidden_size": 4096,
                "rms_norm_eps": 1e-5,
            },
            "tie_word_embeddings": False,
        },
    ),
)
