"""VideoLLaMA 3: Qwen2.5 under a tower of its own, for images and video of any size."""

from typing import Any

from workbench.lvlm.models import MODELS, Model


def _model(size: str, tied: bool, source: str, **fields: Any) -> Model:
    return Model(
        "qwen2",
        {
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "use_sliding_window": False,
            "tie_word_embeddings": tied,
            **fields,
        },
        f"config.json of DAMO-NLP-SG/VideoLLaMA3-{size}{source}",
        around={
            "model_type": "video_llama_3",
            "vision_config": {
                "model_type": "video_llama_3_vision",
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "patch_size": 14,
            },
            "tie_word_embeddings": tied,
        },
    )


MODELS.add(
    "videollama3-2b",
    _model(
        "2B",
        True,
        ", in the sections of transformers' VideoLlama3Config",
        vocab_size=151936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
    ),
)
MODELS.add(
    "videollama3-7b",
    _model(
        "7B",
        False,
        ", in the same sections; its vocab_size from memory: Qwen2.5-7B's",
        vocab_size=152064,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
    ),
)
