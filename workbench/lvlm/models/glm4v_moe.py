"""GLM-4.5V: two norms, M-RoPE over the first half of a head; experts beside one for every token.

The first layer's MLP is one; of the 128 experts of the others a token meets 8 and the shared one.
"""

from typing import TYPE_CHECKING, Any

from workbench.lvlm.models import FAMILIES, MODELS, Model
from workbench.lvlm.models.biased import Biased
from workbench.lvlm.models.mrope import MRope
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.experts import Experts
from workbench.lvlm.parts.forms import llama_like, rotate_first

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig


class Glm4vMoe(Biased, MRope):
    """Some layers have experts."""

    def experts(self, config: "PreTrainedConfig") -> Experts:
        return Experts(config.num_experts_per_tok, config.n_routed_experts)


def _parts(layer: "nn.Module") -> LayerParts:
    return llama_like(layer, rotate_first)


FAMILIES.add(
    "glm4v_moe",
    Glm4vMoe(
        "glm4v_moe_text",
        "glm4v_moe",
        "Glm4vMoeText",
        _parts,
        lm_name="Glm4vMoeForConditionalGeneration",
    ),
)

TEXT: dict[str, Any] = {
    "vocab_size": 151552,
    "hidden_size": 4096,
    "intermediate_size": 10944,
    "num_hidden_layers": 46,
    "num_attention_heads": 96,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "attention_bias": True,
    "max_position_embeddings": 65536,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [8, 12, 12],
    },
    "moe_intermediate_size": 1408,
    "n_routed_experts": 128,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "tie_word_embeddings": False,
}
TOWER: dict[str, Any] = {
    "model_type": "glm4v_moe_vision",
    "depth": 24,
    "hidden_size": 1536,
    "intermediate_size": 10944,
    "num_heads": 12,
    "in_channels": 3,
    "image_size": 336,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 4096,
    "rms_norm_eps": 1e-5,
}

MODELS.add(
    "glm-4.5v",
    Model(
        "glm4v_moe",
        TEXT,
        "config.json of zai-org/GLM-4.5V",
        tower="glm4v_moe",
        around={"model_type": "glm4v_moe", "vision_config": TOWER, "tie_word_embeddings": False},
    ),
)
