"""Idefics2: Mistral under SigLIP, whose images of any shape 64 latents read."""

from workbench.lvlm.models import MODELS, Model
from workbench.lvlm.models.idefics3 import SO400M

MODELS.add(
    "idefics2-8b",
    Model(
        "mistral",
        {
            "vocab_size": 32003,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "sliding_window": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "tie_word_embeddings": False,
        },
        "config.json of HuggingFaceM4/idefics2-8b: the defaults of transformers' Idefics2Config, "
        "which name it, and from memory its vision_config and vocab_size",
        around={
            "model_type": "idefics2",
            "vision_config": {"model_type": "idefics2_vision", "image_size": 980, **SO400M},
            "perceiver_config": {
                "hidden_size": 4096,
                "rms_norm_eps": 1e-5,
                "resampler_n_latents": 64,
                "resampler_depth": 3,
                "resampler_n_heads": 16,
                "resampler_head_dim": 96,
                "num_key_value_heads": 4,
            },
            "tie_word_embeddings": False,
        },
    ),
)
