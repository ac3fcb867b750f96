"""FastVLM: Qwen2 behind the tower of FastVLM."""

from typing import Any

from workbench.lvlm.models import MODELS, Model


def _model(size: str, vocabulary: int, tied: bool, **fields: Any) -> Model:
    """One of transformers' form; ids are padded for the image's own."""
    return Model(
        "qwen2",
        {
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "use_sliding_window": False,
            "num_key_value_heads": 2,
            "vocab_size": vocabulary,
            "tie_word_embeddings": tied,
            **fields,
        },
        f"transformers' conversion script of KamilaMila/FastVLM-{size} "
        f"(convert_fastvlm_weights_to_hf.py), FastVlmConfig and config.json of Qwen/Qwen2-{size}",
        around={
            "model_type": "fast_vlm",
            "vision_config": {
                "model_type": "timm_wrapper",
                "architecture": "fastvit_mci3",
                "hidden_size": 3072,
                "model_args": {"inference_mode": True},
            },
            "image_seq_length": 256,
            "tie_word_embeddings": tied,
        },
    )


MODELS.add(
    "fastvlm-0.5b",
    _model(
        "0.5B",
        152000,
        tied=True,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
    ),
)
MODELS.add(
    "fastvlm-1.5b",
    _model(
        "1.5B",
        152000,
        tied=True,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
    ),
)
MODELS.add(
    "fastvlm-7b",
    _model(
        "7B",
        152128,
        tied=False,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
    ),
)
