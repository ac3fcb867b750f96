"""Pixtral 12B and Mistral Small 3: Mistral under Pixtral's tower."""

from typing import Any

from workbench.lvlm.models import MODELS, Model


def tower(patch: int, image: int) -> dict[str, Any]:
    """The fields of a published vision_config."""
    return {
        "model_type": "pixtral",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": image,
        "patch_size": patch,
        "hidden_act": "silu",
        "rope_theta": 10000.0,
    }


def _mistral(mlp: int, max_positions: int, theta: float) -> dict[str, Any]:
    return {
        "vocab_size": 131072,
        "hidden_size": 5120,
        "intermediate_size": mlp,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": max_positions,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "sliding_window": None,
        "tie_word_embeddings": False,
    }


def merged(tower: dict[str, Any], tied: bool) -> dict[str, Any]:
    """The fields around a text model whose image tokens are 2 × 2 patches each."""
    return {
        "model_type": "mistral3",
        "vision_config": tower,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -1,
        "spatial_merge_size": 2,
        "multimodal_projector_bias": False,
        "tie_word_embeddings": tied,
    }


MODELS.add(
    "pixtral-12b",
    Model(
        "mistral",
        _mistral(14336, 1024000, 1e9),
        "config.json of mistral-community/pixtral-12b",
        around={
            "model_type": "llava",
            "vision_config": tower(16, 1024),
            "projector_hidden_act": "gelu",
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "multimodal_projector_bias": True,
            "tie_word_embeddings": False,
        },
    ),
)
MODELS.add(
    "mistral-small-3.1-24b",
    Model(
        "mistral",
        _mistral(32768, 131072, 1e9),
        "config.json of mistralai/Mistral-Small-3.1-24B-Instruct-2503",
        around=merged(tower(14, 1540), tied=False),
    ),
)
