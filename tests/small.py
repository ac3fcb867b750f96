"""Small models of every family: real configurations and layers, a few thousand parameters."""

from pathlib import Path

from transformers import AutoConfig

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.models import FAMILIES, resolve

SHARED = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
OWN = {
    "mistral": {"head_dim": 8, "sliding_window": None},
    "llama": {"num_key_value_heads": 4},
    "gemma2": {
        "head_dim": 16,
        "sliding_window": 16,
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
    },
    "qwen2": {},
    "gemma3": {
        "head_dim": 16,
        "sliding_window": 16,
        "query_pre_attn_scalar": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    "qwen2_5_vl": {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [2, 1, 1],
        }
    },
}
FAMILY_NAMES = sorted(OWN)
LAYER_SYSTEMS = sorted(name for name, system in SYSTEMS.items() if system.lone_layer)
"""Those that scope ``layer`` serves."""
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
LLAVA = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
"""The last layer's patches, all of them, as SigLIP has no class token."""
TOWERS = {
    "mistral": {"model_type": "llava", "vision_config": SIGLIP, **LLAVA},
    "llama": {"model_type": "llava", "vision_config": SIGLIP, **LLAVA},
    "gemma3": {
        "model_type": "gemma3",
        "vision_config": {**SIGLIP, "vision_use_head": False},
        "mm_tokens_per_image": 4,
    },
    "qwen2_5_vl": {
        "model_type": "qwen2_5_vl",
        "vision_config": {
            "model_type": "qwen2_5_vl_vision",
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
        },
        "image_token_id": 96,
        "video_token_id": 95,
        "vision_start_token_id": 94,
    },
}
"""What stands around the text model of a vision-language model, by the family of its decoder."""


def small_model(family: str, folder: Path, **fields: object) -> str:
    """Write the config of a small model of that family; returns its name for a Cell."""
    path = folder / family
    FAMILIES[family].config({**SHARED, **OWN[family], **fields}).save_pretrained(path)
    name = str(path)
    assert resolve(name).family is FAMILIES[family]
    return name


def small_lvlm(family: str, folder: Path, **fields: object) -> str:
    """The same with a small vision tower of its own; returns its name for a Cell."""
    text = FAMILIES[family].config({**SHARED, **OWN[family], **fields})
    whole = AutoConfig.for_model(**TOWERS[family], text_config=text.to_dict())
    path = folder / f"{family}-lvlm"
    whole.save_pretrained(path)
    return str(path)
