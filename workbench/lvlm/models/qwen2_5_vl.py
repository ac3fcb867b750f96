"""Qwen2.5-VL: Qwen2's layer under M-RoPE."""

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
