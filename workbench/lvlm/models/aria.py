"""Aria: LLaMA's attention; of 64 experts a token meets six, and a shared MLP as wide as two."""

from typing import TYPE_CHECKING, Any

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts.experts import Experts
from workbench.lvlm.parts.forms import llama_like
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig


class Aria(Family):
    """Every layer has experts, whose number has names of its own."""

    def experts(self, config: "PreTrainedConfig") -> Experts:
        return Experts(config.moe_topk, config.moe_num_experts)

    def router(self, layer: Any) -> "nn.Module":
        router: nn.Module = layer.mlp.router
        return router

    def check(self, name: str, config: "PreTrainedConfig") -> None:
        if config.moe_topk > config.moe_num_experts:
            raise RequestError(
                f"model {name!r}: moe_topk {config.moe_topk}: at most moe_num_experts "
                f"{config.moe_num_experts}"
            )


FAMILIES.add("aria", Aria("aria_text", "aria", "AriaText", llama_like))

MODELS.add(
    "aria",
    Model(
        "aria",
        {
            "vocab_size": 100352,
            "hidden_size": 2560,
            "intermediate_size": 1664,
            "num_hidden_layers": 28,
            "num_attention_heads": 20,
            "num_key_value_heads": 20,
            "moe_num_experts": 64,
            "moe_topk": 6,
            "moe_num_shared_experts": 2,
            "max_position_embeddings": 65536,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e6},
            "tie_word_embeddings": False,
        },
        "config.json of rhymes-ai/Aria, and the defaults of transformers' AriaTextConfig and "
        "Idefics3VisionConfig",
        tower="aria",
        around={
            "model_type": "aria",
            "vision_config": {
                "model_type": "idefics3_vision",
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "image_size": 980,
                "patch_size": 14,
            },
            "projector_patch_to_query_dict": {"1225": 128, "4900": 256},
            "vision_feature_layer": -1,
            "tie_word_embeddings": False,
        },
    ),
)
