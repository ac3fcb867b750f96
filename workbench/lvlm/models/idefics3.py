"""Idefics3, SmolVLM2 and the Docling models of their form: Llama under SigLIP.

Tiles are shuffled into few tokens.
"""

from typing import Any

from workbench.lvlm.models import MODELS, Model

SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
}
"""SigLIP so400m/14."""
BASE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 512,
    "patch_size": 16,
}
"""SigLIP base/16 at 512 pixels."""

MODELS.add(
    "idefics3-8b",
    Model(
        "llama",
        {
            "vocab_size": 128259,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
            "tie_word_embeddings": False,
        },
        "config.json of HuggingFaceM4/Idefics3-8B-Llama3",
        around={
            "model_type": "idefics3",
            "vision_config": {"model_type": "idefics3_vision", "image_size": 364, **SO400M},
            "scale_factor": 2,
            "tie_word_embeddings": False,
        },
    ),
)


def _smollm2(
    hidden: int, mlp: int, layers: int, heads: int, groups: int, theta: float
) -> dict[str, Any]:
    return {
        "vocab_size": 49280,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": 64,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "tie_word_embeddings": False,
    }


def _smolvlm2(
    name: str, fields: dict[str, Any], tower: dict[str, Any], scale: int, source: str
) -> None:
    around = {
        "model_type": "smolvlm",
        "vision_config": {"model_type": "smolvlm_vision", **tower},
        "scale_factor": scale,
        "tie_word_embeddings": False,
    }
    MODELS.add(name, Model("llama", fields, f"config.json of {source}", around=around))


_smolvlm2(
    "smolvlm2-2.2b",
    _smollm2(2048, 8192, 24, 32, 32, 130000.0),
    {"image_size": 384, **SO400M},
    3,
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
)
_smolvlm2(
    "smolvlm2-500m",
    _smollm2(960, 2560, 32, 15, 5, 100000.0),
    BASE,
    4,
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
)
_smolvlm2(
    "smolvlm2-256m",
    _smollm2(576, 1536, 30, 9, 3, 100000.0),
    BASE,
    4,
    "HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
)
for _name, _vocab, _tied, _source in (
    ("smoldocling-256m", 49280, False, "ds4sd/SmolDocling-256M-preview"),
    ("granite-docling-258m", 100352, True, "ibm-granite/granite-docling-258M"),
):
    MODELS.add(
        _name,
        Model(
            "llama",
            {
                **_smollm2(576, 1536, 30, 9, 3, 100000.0),
                "vocab_size": _vocab,
                "tie_word_embeddings": _tied,
            },
            f"config.json of {_source}, written from memory",
            around={
                "model_type": "idefics3",
                "vision_config": {"model_type": "idefics3_vision", **BASE},
                "scale_factor": 4,
                "tie_word_embeddings": _tied,
            },
        ),
    )
