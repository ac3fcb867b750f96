"""Qwen2.5-VL: Qwen2's layer under M-RoPE."""

from typing import Any

from workbench.lvlm.models import FAMILIES, MODELS, Model
from workbench.lvlm.models.mrope import MRope, sectioned

FAMILIES.add(
    "qwen2_5_vl",
    MRope(
        "qwen2_5_vl_text",
        "qwen2_5_vl",
        "Qwen2_5_VL",
        sectioned,
        config_name="Qwen2_5_VLTextConfig",
        lm_name="Qwen2_5_VLForConditionalGeneration",
    ),
)


def _model(size: str, tower_mlp: int, tied: bool, **fields: Any) -> Model:
    """A published size. Its config.json has the text model's fields beside the tower's section."""
    return Model(
        "qwen2_5_vl",
        {
            "max_position_embeddings": 128000,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [16, 24, 24],
            },
            "use_sliding_window": False,
            "tie_word_embeddings": tied,
            **fields,
        },
        f"config.json of Qwen/Qwen2.5-VL-{size}-Instruct",
        tower="qwen2_5_vl",
        around={
            "model_type": "qwen2_5_vl",
            "vision_config": {
                "depth": 32,
                "hidden_size": 1280,
                "hidden_act": "silu",
                "intermediate_size": tower_mlp,
                "num_heads": 16,
                "in_channels": 3,
                "out_hidden_size": fields["hidden_size"],
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "tokens_per_second": 2,
                "window_size": 112,
                "fullatt_block_indexes": [7, 15, 23, 31],
            },
            "tie_word_embeddings": tied,
        },
    )


MODELS.add(
    "qwen2.5-vl-3b",
    _model(
        "3B",
        3420,
        True,
        vocab_size=151936,
        hidden_size=2048,
        intermediate_size=11008,
        num_hidden_layers=36,
        num_attention_heads=16,
        num_key_value_heads=2,
    ),
)
MODELS.add(
    "qwen2.5-vl-7b",
    _model(
        "7B",
        3420,
        False,
        vocab_size=152064,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
    ),
)
MODELS.add(
    "qwen2.5-vl-32b",
    _model(
        "32B",
        3456,
        False,
        vocab_size=152064,
        hidden_size=5120,
        intermediate_size=27648,
        num_hidden_layers=64,
        num_attention_heads=40,
        num_key_value_heads=8,
    ),
)
MODELS.add(
    "qwen2.5-vl-72b",
    _model(
        "72B",
        3456,
        False,
        vocab_size=152064,
        hidden_size=8192,
        intermediate_size=29568,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
    ),
)
