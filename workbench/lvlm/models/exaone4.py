"""EXAONE 4 and 4.5: norms after attention and MLP alone, QK-norm, three windows to a global layer.

Nothing is normed before a layer's attention or its MLP; what each adds to the residual is. Where
some layers have windows, the global ones turn nothing (NoPE).
"""

from typing import Any

from torch import nn

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.forms import as_it_is, rotate_half


def post_normed(layer: Any) -> LayerParts:
    """Parts of a layer that norms what its attention and its MLP give, and not what they read."""
    attention, config = layer.self_attn, layer.self_attn.config
    windowed, none = attention.is_sliding, nn.Identity()
    return LayerParts(
        layer=layer,
        attention=attention,
        input_norm=none,
        post_attention_norm=layer.post_attention_layernorm,
        mlp_norm=none,
        mlp=layer.mlp,
        post_mlp_norm=layer.post_feedforward_layernorm,
        q_norm=attention.q_norm,
        k_norm=attention.k_norm,
        hidden_size=config.hidden_size,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=attention.head_dim,
        scale=attention.scaling,
        softcap=None,
        window=attention.sliding_window if windowed else None,
        rope=rotate_half if windowed or attention.sliding_window is None else as_it_is,
    )


FAMILIES.add("exaone4", Family("exaone4", "exaone4", "Exaone4", post_normed))

_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1e6,
    "factor": 16.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LARGE = {
    "hidden_size": 5120,
    "intermediate_size": 27392,
    "num_hidden_layers": 64,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "sliding_window": 4096,
    "layer_types": [*["sliding_attention"] * 3, "full_attention"] * 16,
    "rope_parameters": _ROPE,
    "tie_word_embeddings": False,
}
MODELS.add(
    "exaone-4.0-1.2b",
    Model(
        "exaone4",
        {
            "vocab_size": 102400,
            "hidden_size": 2048,
            "intermediate_size": 4096,
            "num_hidden_layers": 30,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 65536,
            "rms_norm_eps": 1e-5,
            "sliding_window": None,
            "layer_types": ["full_attention"] * 30,
            "rope_parameters": _ROPE,
            "tie_word_embeddings": True,
        },
        "config.json of LGAI-EXAONE/EXAONE-4.0-1.2B, written from memory",
    ),
)
MODELS.add(
    "exaone-4.0-32b",
    Model(
        "exaone4",
        {"vocab_size": 102400, **LARGE},
        "config.json of LGAI-EXAONE/EXAONE-4.0-32B, written from memory",
    ),
)
MODELS.add(
    "exaone-4.5-33b",
    Model(
        "exaone4",
        {"vocab_size": 153600, **LARGE},
        "config.json of LGAI-EXAONE/EXAONE-4.5-33B, as TensorRT-LLM's tests quote it",
        around={
            "model_type": "exaone4_5",
            "vision_config": {
                "model_type": "exaone4_5_vision",
                "depth": 28,
                "hidden_size": 2048,
                "intermediate_size": 5120,
                "num_heads": 32,
                "num_key_value_heads": 8,
                "out_hidden_size": 5120,
                "fullatt_block_indexes": [6, 13, 20, 27],
                "in_channels": 3,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "window_size": 112,
            },
            "tie_word_embeddings": False,
        },
    ),
)
