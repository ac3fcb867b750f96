"""Qwen3-Omni's thinker: Qwen3-VL's layer with experts, deepstack, time as Qwen2.5-Omni has it."""

from workbench.lvlm.models import FAMILIES, MODELS, Model
from workbench.lvlm.models.qwen2_5_omni import Thinker
from workbench.lvlm.parts.forms import llama_like

FAMILIES.add(
    "qwen3_omni_moe",
    Thinker(
        "qwen3_omni_moe_text",
        "qwen3_omni_moe",
        "Qwen3OmniMoeThinkerText",
        llama_like,
        config_name="Qwen3OmniMoeTextConfig",
        lm_name="Qwen3OmniMoeThinkerForConditionalGeneration",
        deepstack=True,
    ),
)

MODELS.add(
    "qwen3-omni-30b-a3b",
    Model(
        "qwen3_omni_moe",
        {
            "vocab_size": 152064,
            "hidden_size": 2048,
            "intermediate_size": 768,
            "moe_intermediate_size": 768,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "decoder_sparse_step": 1,
            "max_position_embeddings": 65536,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [24, 20, 20],
            },
        },
        "config.json of Qwen/Qwen3-Omni-30B-A3B-Instruct, its thinker_config, from memory",
        tower="qwen3_omni_moe",
        around={
            "model_type": "qwen3_omni_moe_thinker",
            "vision_config": {
                "depth": 27,
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_heads": 16,
                "out_hidden_size": 2048,
                "patch_size": 16,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "num_position_embeddings": 2304,
                "deepstack_visual_indexes": [8, 16, 24],
            },
            "audio_config": {"output_dim": 2048},
            "position_id_per_seconds": 13,
            "tie_word_embeddings": False,
        },
    ),
)
