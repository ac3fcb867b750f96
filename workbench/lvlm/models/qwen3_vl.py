"""Qwen3-VL: QK-norm, and M-RoPE whose three positions alternate along the head."""

from typing import Any

from workbench.lvlm.models import FAMILIES, MODELS, Model
from workbench.lvlm.models.mrope import MRope
from workbench.lvlm.parts.forms import llama_like

FAMILIES.add(
    "qwen3_vl",
    MRope(
        "qwen3_vl_text",
        "qwen3_vl",
        "Qwen3VLText",
        llama_like,
        lm_name="Qwen3VLForConditionalGeneration",
        deepstack=True,
    ),
)

SMALL_TOWER = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "deepstack_visual_indexes": [5, 11, 17],
}
"""Of the 2B and 4B models."""
LARGE_TOWER = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "deepstack_visual_indexes": [8, 16, 24],
}
"""Of the others."""


def text_fields(**fields: Any) -> dict[str, Any]:
    """A published text_config: what all sizes share, and the fields of one."""
    return {
        "vocab_size": 151936,
        "head_dim": 128,
        "num_key_value_heads": 8,
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5e6,
            "mrope_section": [24, 20, 20],
            "mrope_interleaved": True,
        },
        **fields,
    }


def around(model_type: str, tower: dict[str, Any], hidden_size: int, tied: bool) -> dict[str, Any]:
    """The fields of a published config.json around its text_config."""
    return {
        "model_type": model_type,
        "vision_config": {
            "in_channels": 3,
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": hidden_size,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            **tower,
        },
        "tie_word_embeddings": tied,
    }


def _model(size: str, tower: dict[str, Any], tied: bool, **fields: Any) -> Model:
    return Model(
        "qwen3_vl",
        text_fields(**fields, tie_word_embeddings=tied),
        f"config.json of Qwen/Qwen3-VL-{size}-Instruct",
        tower="qwen3_vl",
        around=around("qwen3_vl", tower, fields["hidden_size"], tied),
    )


MODELS.add(
    "qwen3-vl-2b",
    _model(
        "2B",
        SMALL_TOWER,
        True,
        hidden_size=2048,
        intermediate_size=6144,
        num_hidden_layers=28,
        num_attention_heads=16,
    ),
)
MODELS.add(
    "qwen3-vl-4b",
    _model(
        "4B",
        SMALL_TOWER,
        True,
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=36,
        num_attention_heads=32,
    ),
)
MODELS.add(
    "qwen3-vl-8b",
    _model(
        "8B",
        LARGE_TOWER,
        False,
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=36,
        num_attention_heads=32,
    ),
)
MODELS.add(
    "qwen3-vl-32b",
    _model(
        "32B",
        LARGE_TOWER,
        False,
        hidden_size=5120,
        intermediate_size=25600,
        num_hidden_layers=64,
        num_attention_heads=64,
    ),
)
