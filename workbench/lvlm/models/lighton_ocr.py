"""LightOnOCR: Qwen3 under Pixtral's tower."""

from workbench.lvlm.models import MODELS, Model

MODELS.add(
    "lighton-ocr-1b",
    Model(
        "qwen3",
        {
            "vocab_size": 151936,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 40960,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_window": None,
            "tie_word_embeddings": True,
        },
        "config.json of lightonai/LightOnOCR-1B-1025, by the defaults of transformers' "
        "LightOnOcrConfig, which name it",
        around={
            "model_type": "lighton_ocr",
            "vision_config": {
                "model_type": "pixtral",
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "head_dim": 64,
                "image_size": 1540,
                "patch_size": 14,
                "hidden_act": "silu",
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            },
            "spatial_merge_size": 2,
            "tie_word_embeddings": True,
        },
    ),
)
