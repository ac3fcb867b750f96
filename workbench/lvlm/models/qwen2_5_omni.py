"""Qwen2.5-Omni's thinker: Qwen2.5-VL's layer, with time in positions of a fraction of a second.

The talker, and what makes sound of its codes, are no part of it.
"""

from typing import Any

from workbench.lvlm.models import FAMILIES, MODELS, Model
from workbench.lvlm.models.mrope import MRope, sectioned

NOTE = (
    "model: its thinker alone; the talker, and what makes sound of its codes, are left out, their "
    "parameters too"
)


class Thinker(MRope):
    """Said with every number: a part of the released model."""

    def notes(self, config: Any) -> list[str]:
        return [NOTE]


FAMILIES.add(
    "qwen2_5_omni",
    Thinker(
        "qwen2_5_omni_text",
        "qwen2_5_omni",
        "Qwen2_5Omni",
        sectioned,
        config_name="Qwen2_5OmniTextConfig",
        lm_name="Qwen2_5OmniThinkerForConditionalGeneration",
    ),
)


def _model(size: str, source: str, **fields: Any) -> Model:
    return Model(
        "qwen2_5_omni",
        {
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [16, 24, 24],
            },
            "use_sliding_window": False,
            **fields,
        },
        f"config.json of Qwen/Qwen2.5-Omni-{size}, its thinker_config: {source}",
        tower="qwen2_5_omni",
        around={
            "model_type": "qwen2_5_omni_thinker",
            "vision_config": {
                "depth": 32,
                "hidden_size": 1280,
                "intermediate_size": 3420,
                "num_heads": 16,
                "out_hidden_size": fields["hidden_size"],
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "window_size": 112,
                "fullatt_block_indexes": [7, 15, 23, 31],
            },
            "audio_config": {"output_dim": fields["hidden_size"]},
            "position_id_per_seconds": 25,
            "tie_word_embeddings": False,
        },
    )


MODELS.add(
    "qwen2.5-omni-7b",
    _model(
        "7B",
        "the defaults of transformers' classes, which name it, its vision_config from memory",
        vocab_size=152064,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
    ),
)
MODELS.add(
    "qwen2.5-omni-3b",
    _model(
        "3B",
        "from memory",
        vocab_size=151936,
        hidden_size=2048,
        intermediate_size=11008,
        num_hidden_layers=36,
        num_attention_heads=16,
        num_key_value_heads=2,
    ),
)
