"""Qwen2-VL: Qwen2's layer under M-RoPE, and a tower of its own."""

from typing import Any

from workbench.lvlm.models import FAMILIES, MODELS, Model
from workbench.lvlm.models.mrope import MRope, sectioned

FAMILIES.add(
    "qwen2_vl",
    MRope(
        "qwen2_vl_text",
        "qwen2_vl",
        "Qwen2VL",
        sectioned,
        config_name="Qwen2VLTextConfig",
        lm_name="Qwen2VLForConditionalGeneration",
    ),
)


def _model(size: str, tied: bool, **fields: Any) -> Model:
    """A published size. Its config.json has the text model's fields beside the tower's section."""
    return Model(
        "qwen2_vl",
        {
            "max_position_embeddings": 32768,
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
        f"config.json of Qwen/Qwen2-VL-{size}-Instruct",
        tower="qwen2_vl",
        around={
            "model_type": "qwen2_vl",
            "vision_config": {
                "depth": 32,
                "embed_dim": 1280,
                "mlp_ratio": 4,
                "num_heads": 16,
                "in_channels": 3,
                "hidden_size": fields["hidden_size"],
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
            },
            "tie_word_embeddings": tied,
        },
    )


MODELS.add(
    "qwen2-vl-2b",
    _model(
        "2B",
        True,
        vocab_size=151936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
    ),
)
MODELS.add(
    "qwen2-vl-7b",
    _model(
        "7B",
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
    "qwen2-vl-72b",
    _model(
        "72B",
        False,
        vocab_size=152064,
        hidden_size=8192,
        intermediate_size=29568,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
    ),
)
