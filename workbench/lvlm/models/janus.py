"""Janus-Pro: LLaMA's form under SigLIP's, where it reads images."""

from typing import Any

from workbench.lvlm.models import MODELS, Model


def _add(size: str, source: str, **fields: Any) -> None:
    hidden = fields["hidden_size"]
    MODELS.add(
        f"janus-pro-{size}",
        Model(
            "llama",
            {
                "vocab_size": 102400,
                "max_position_embeddings": 16384,
                "rms_norm_eps": 1e-6,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
                "tie_word_embeddings": False,
                **fields,
            },
            f"config.json of deepseek-community/Janus-Pro-{size.upper()}: {source}",
            around={
                "model_type": "janus",
                "vision_config": {
                    "model_type": "janus_vision_model",
                    "hidden_size": 1024,
                    "num_hidden_layers": 24,
                    "num_attention_heads": 16,
                    "mlp_ratio": 4.0,
                    "image_size": 384,
                    "patch_size": 16,
                    "projection_dim": hidden,
                    "depth": 2,
                },
                "vq_config": {"projection_dim": hidden, "image_token_embed_dim": hidden},
                "tie_word_embeddings": False,
            },
        ),
    )


_add(
    "1b",
    "the defaults of transformers' JanusConfig, which name it, its text_config from memory",
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=24,
    num_attention_heads=16,
    num_key_value_heads=16,
)
_add(
    "7b",
    "from memory",
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=30,
    num_attention_heads=32,
    num_key_value_heads=32,
)
