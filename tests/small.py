"""Small models of every family: real configurations and layers, a few thousand parameters."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.models import FAMILIES, resolve

SHARED = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
OWN = {
    "mistral": {"head_dim": 8, "sliding_window": None},
    "llama": {"num_key_value_heads": 4},
    "gemma2": {
        "head_dim": 16,
        "sliding_window": 16,
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
    },
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gemma3": {
        "head_dim": 16,
        "sliding_window": 16,
        "query_pre_attn_scalar": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    "qwen2_5_vl": {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [2, 1, 1],
        }
    },
}
OWN["qwen2_vl"] = OWN["qwen2_5_vl"]
OWN["qwen3_vl"] = {
    "head_dim": 8,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [2, 1, 1],
    },
}
OWN["glm4v"] = {
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.75,
        "mrope_section": [1, 1, 1],
    },
}
OWN["glm_ocr"] = OWN["glm4v"]
OWN["paddleocr_vl"] = {
    **OWN["qwen2_5_vl"],
    "head_dim": 8,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
OWN["gemma4"] = {
    "head_dim": 8,
    "global_head_dim": 16,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
    "sliding_window": 16,
    "final_logit_softcapping": 3.0,
    "use_bidirectional_attention": "vision",
}
EMBEDDED = {
    "num_hidden_layers": 8,
    "attention_k_eq_v": False,
    "num_global_key_value_heads": None,
    "hidden_size_per_layer_input": 6,
    "vocab_size_per_layer_input": 97,
    "num_kv_shared_layers": 3,
    "use_double_wide_mlp": True,
    "use_bidirectional_attention": None,
    "layer_types": [f"{'full' if i in (2, 5, 7) else 'sliding'}_attention" for i in range(8)],
}
"""Of ``gemma4``: embeddings for every layer, and last layers that share keys and values."""
OWN["gemma"] = {"head_dim": 8}
OWN["cohere"] = {"use_qk_norm": True, "logit_scale": 0.5}
OWN["cohere2"] = {"sliding_window": 16, "sliding_window_pattern": 2, "logit_scale": 0.5}
OWN["granite"] = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.6,
    "logits_scaling": 4.0,
}
OWN["exaone4"] = {
    "sliding_window": 16,
    "sliding_window_pattern": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
OWN["hunyuan_vl"] = {
    "head_dim": 16,
    "pad_token_id": 0,
    "rope_parameters": {
        "rope_type": "dynamic",
        "rope_theta": 10000.0,
        "alpha": 1000.0,
        "factor": 1.0,
        "mrope_section": [2, 2, 2, 2],
    },
}
OWN["granite_docling"] = {
    **OWN["granite"],
    "num_hidden_layers": 5,
    "rms_norm_eps": 1e-6,
    "pad_token_id": 0,
}
OWN["granite4_vision"] = {**OWN["granite"], "num_hidden_layers": 9, "pad_token_id": 0}
OWN["molmo2"] = {
    "head_dim": 8,
    "additional_vocab_size": 6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": False,
}
OWN["ministral3"] = {
    "rms_norm_eps": 1e-6,
    "head_dim": 8,
    "sliding_window": None,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 16.0,
        "original_max_position_embeddings": 8,
        "llama_4_scaling_beta": 0.5,
    },
}
OWN["mllama"] = {
    "num_hidden_layers": 4,
    "cross_attention_layers": [1, 3],
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "pad_token_id": 0,
}
OWN["gemma3n"] = {
    "num_hidden_layers": 8,
    "head_dim": 8,
    "vocab_size_per_layer_input": 90,
    "hidden_size_per_layer_input": 6,
    "laurel_rank": 4,
    "num_kv_shared_layers": 3,
    "sliding_window": 16,
    "layer_types": [f"{'full' if i in (2, 5, 7) else 'sliding'}_attention" for i in range(8)],
    "activation_sparsity_pattern": [0.9] * 2 + [0.0] * 6,
    "final_logit_softcapping": 3.0,
    "pad_token_id": 0,
}
OWN["llama4"] = {
    "num_hidden_layers": 4,
    "head_dim": 8,
    "intermediate_size_mlp": 40,
    "num_local_experts": 4,
    "interleave_moe_layer_step": 2,
    "attention_chunk_size": 12,
    "floor_scale": 8,
    "pad_token_id": 0,
}
OWN["qwen3_vl_moe"] = {
    **OWN["qwen3_vl"],
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "tie_word_embeddings": False,
}
OWN["qwen2_5_omni"] = {**OWN["qwen2_5_vl"], "rms_norm_eps": 1e-5}
OWN["qwen3_omni_moe"] = OWN["qwen3_vl_moe"]
OWN["qwen3_moe"] = {
    "head_dim": 8,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
OWN["glm4v_moe"] = {
    "head_dim": 8,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [1, 1],
    },
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
OWN["deepseek_ocr2"] = {
    "mlp_layer_types": ["dense", "sparse"],
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
OWN["aria"] = {
    "num_key_value_heads": 4,
    "intermediate_size": 16,
    "moe_num_experts": 8,
    "moe_topk": 2,
    "moe_num_shared_experts": 2,
}
OWN["hyperclovax"] = {
    "head_dim": 8,
    "embedding_multiplier": 3.0,
    "logits_scaling": 0.5,
    "residual_multiplier": 0.7,
    "attention_multiplier": 0.4,
}
OWN["qwen3_5"] = {
    "head_dim": 16,
    "full_attention_interval": 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [2, 1, 1],
    },
    "tie_word_embeddings": False,
}
OWN["qwen3_5_moe"] = {
    **OWN["qwen3_5"],
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 24,
}
OWN["phi4_multimodal"] = {
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.75,
    },
    "pad_token_id": 0,
    "vision_config": {
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 56,
        "crop_size": 56,
        "image_token_id": 96,
    },
    "audio_config": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_blocks": 1,
        "num_attention_heads": 2,
        "ext_pw_out_channel": 16,
        "depthwise_separable_out_channel": 16,
        "nemo_conv_channels": 16,
        "bias_max_distance": 10,
        "audio_token_id": 95,
    },
}
"""One configuration is that of the text model and of what is around it."""
OWN["lfm2"] = {
    "num_hidden_layers": 4,
    "block_multiple_of": 8,
    "layer_types": ["conv", "full_attention"] * 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
OWN["mistral4"] = {
    "rms_norm_eps": 1e-6,
    "num_key_value_heads": 4,
    "kv_lora_rank": 12,
    "q_lora_rank": 20,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 10,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 16.0,
        "original_max_position_embeddings": 8,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.5,
        "partial_rotary_factor": 0.4,
    },
    "pad_token_id": 0,
}
OWN["deepseek_v3"] = {
    **OWN["mistral4"],
    "qk_nope_head_dim": 12,
    "n_group": 2,
    "topk_group": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "pad_token_id": None,
}
OWN["ernie4_5_vl_moe"] = {
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [1, 1, 2],
    },
    "num_hidden_layers": 3,
    "moe_intermediate_size": [16, 8],
    "moe_k": 2,
    "moe_num_experts": 4,
    "moe_num_shared_experts": 1,
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "tie_word_embeddings": True,
}
MIXED = ("qwen3_5", "qwen3_5_moe")
"""Families with linear layers between gated ones: tests of their own."""
CONVOLVING = ("lfm2",)
"""Families most of whose layers are gated convolutions: tests of their own."""
EXPERTS = (
    "qwen3_vl_moe",
    "qwen3_moe",
    "qwen3_omni_moe",
    "glm4v_moe",
    "deepseek_ocr2",
    "aria",
)
"""Families whose MLP is of experts, which do not compute in float64: tests of their own."""
LATENT = ("mistral4", "deepseek_v3")
"""Families whose attention is latent: tests of their own."""
CROSSING = ("mllama", "gemma3n", "hunyuan_vl", "ernie4_5_vl_moe")
"""Families on which few systems have a place, or S-Attn alone: tests of their own."""
ALIKE = {
    "qwen2_vl": "qwen2_5_vl",
    "qwen2_5_omni": "qwen2_5_vl",
    "glm_ocr": "glm4v",
    "paddleocr_vl": "mistral",
    "ministral3": "mistral",
    "molmo2": "qwen3",
    "gemma": "mistral",
    "granite4_vision": "granite",
    "granite_docling": "granite",
}
"""Families whose layer is that of another, piece by piece: what holds for that holds for them."""
FAMILY_NAMES = sorted(
    set(OWN) - {*ALIKE, *EXPERTS, *MIXED, *CONVOLVING, *CROSSING, *LATENT},
)
LAYER_SYSTEMS = sorted(name for name, system in SYSTEMS.items() if system.lone_layer)
"""Those that scope ``layer`` serves."""
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
LLAVA = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
"""The last layer's patches, all of them, as SigLIP has no class token."""
TOKEN_IDS = {"image_token_id": 96, "video_token_id": 95, "vision_start_token_id": 94}
TOWERS = {
    "mistral": {"model_type": "llava", "vision_config": SIGLIP, **LLAVA},
    "llama": {"model_type": "llava", "vision_config": SIGLIP, **LLAVA},
    "gemma3": {
        "model_type": "gemma3",
        "vision_config": {**SIGLIP, "vision_use_head": False},
        "mm_tokens_per_image": 4,
    },
    "qwen2_5_vl": {
        "model_type": "qwen2_5_vl",
        "vision_config": {
            "model_type": "qwen2_5_vl_vision",
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
        },
        **TOKEN_IDS,
    },
    "qwen2_vl": {
        "model_type": "qwen2_vl",
        "vision_config": {
            "model_type": "qwen2_vl_vision",
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 32,
            "mlp_ratio": 2,
            "num_heads": 2,
        },
        **TOKEN_IDS,
    },
    "qwen3_vl": {
        "model_type": "qwen3_vl",
        "vision_config": {
            "model_type": "qwen3_vl_vision",
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_heads": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 49,
            "deepstack_visual_indexes": [0, 1],
        },
        **TOKEN_IDS,
    },
}
TOWERS["glm4v"] = {
    "model_type": "glm4v",
    "vision_config": {
        "model_type": "glm4v_vision",
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_heads": 2,
        "image_size": 56,
        "out_hidden_size": 32,
    },
    "image_token_id": 96,
    "video_token_id": 95,
}
TOWERS["glm_ocr"] = {
    **TOWERS["glm4v"],
    "model_type": "glm_ocr",
    "vision_config": {**TOWERS["glm4v"]["vision_config"], "model_type": "glm_ocr_vision"},
}
TOWERS["ernie4_5_vl_moe"] = {
    "model_type": "ernie4_5_vl_moe",
    "vision_config": {
        "model_type": "ernie4_5_vl_moe_vision",
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_heads": 2,
    },
    "image_token_id": 96,
    "video_token_id": 95,
    "tie_word_embeddings": True,
}
TOWERS["gemma4"] = {
    "model_type": "gemma4",
    "vision_config": {
        "model_type": "gemma4_vision",
        "hidden_size": 48,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "head_dim": 16,
        "position_embedding_size": 900,
        "standardize": True,
    },
    "image_token_id": 96,
    "video_token_id": 95,
    "audio_token_id": 94,
    "audio_config": None,
}
TOWERS["glm4v_moe"] = {
    **TOWERS["glm4v"],
    "model_type": "glm4v_moe",
    "vision_config": {**TOWERS["glm4v"]["vision_config"], "model_type": "glm4v_moe_vision"},
}
AUDIO = {
    "d_model": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "num_mel_bins": 8,
    "output_dim": 32,
}
"""An audio tower, which no part here runs."""
TOWERS["qwen2_5_omni"] = {
    "model_type": "qwen2_5_omni_thinker",
    "vision_config": {
        "model_type": "qwen2_5_omni_vision_encoder",
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_heads": 2,
        "out_hidden_size": 32,
        "fullatt_block_indexes": [1],
    },
    "audio_config": AUDIO,
    "image_token_index": 96,
    "video_token_index": 95,
    "vision_start_token_id": 94,
    "audio_token_index": 93,
    "audio_start_token_id": 92,
}
TOWERS["qwen3_omni_moe"] = {
    "model_type": "qwen3_omni_moe_thinker",
    "vision_config": {
        "model_type": "qwen3_omni_moe_vision_encoder",
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_heads": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 49,
        "deepstack_visual_indexes": [0, 1],
    },
    "audio_config": {**AUDIO, "downsample_hidden_size": 8},
    "image_token_id": 96,
    "video_token_id": 95,
    "vision_start_token_id": 94,
    "audio_token_id": 93,
    "audio_start_token_id": 92,
}
TOWERS["mllama"] = {
    "model_type": "mllama",
    "vision_config": {
        "model_type": "mllama_vision_model",
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_global_layers": 2,
        "attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "vision_output_dim": 96,
        "intermediate_layers_indices": [0, 2],
    },
    "image_token_index": 97,
}
TOWERS["llama4"] = {
    "model_type": "llama4",
    "vision_config": {
        "model_type": "llama4_vision_model",
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "projector_input_dim": 48,
        "projector_output_dim": 48,
        "vision_output_dim": 48,
    },
    "image_token_index": 96,
    "pad_token_id": 0,
}
TOWERS["deepseek_ocr2"] = {
    "model_type": "deepseek_ocr2",
    "vision_config": {
        "model_type": "deepseek_ocr2_vision",
        "sam_config": {
            "hidden_size": 16,
            "mlp_dim": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "global_attn_indexes": [1],
            "output_channels": 4,
            "downsample_channels": [8, 32],
        },
        "encoder_config": {
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 1,
        },
    },
    "image_token_id": 96,
}
TOWERS["aria"] = {
    "model_type": "aria",
    "vision_config": {
        "model_type": "idefics3_vision",
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 980,
        "patch_size": 140,
    },
    "projector_patch_to_query_dict": {49: 5, 196: 9},
    "image_token_index": 96,
    "tie_word_embeddings": False,
}
TOWERS["hyperclovax"] = {
    "model_type": "hyperclovax_vision_v2",
    "vision_config": {**TOWERS["qwen2_5_vl"]["vision_config"], "out_hidden_size": 24},
    "image_token_id": 96,
    "video_token_id": 95,
    "tie_word_embeddings": False,
}
TOWERS["qwen3_vl_moe"] = {
    **TOWERS["qwen3_vl"],
    "model_type": "qwen3_vl_moe",
    "vision_config": {
        **TOWERS["qwen3_vl"]["vision_config"],
        "model_type": "qwen3_vl_moe_vision",
    },
}
TOWERS["qwen3_5"] = {
    "model_type": "qwen3_5",
    "vision_config": {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_heads": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 49,
    },
    **TOKEN_IDS,
}
TOWERS["qwen3_5_moe"] = {**TOWERS["qwen3_5"], "model_type": "qwen3_5_moe"}
"""What stands around the text model of a vision-language model, by the family of its decoder."""
CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
PIXTRAL = {
    "model_type": "pixtral",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 112,
    "patch_size": 14,
}
WRAPPERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llava": ("llama", {"vision_config": CLIP, "image_token_index": 96}),
    "vipllava": (
        "llama",
        {"vision_config": CLIP, "image_token_index": 96, "vision_feature_layer": [-2, 1]},
    ),
    "llava_next": (
        "mistral",
        {
            "vision_config": CLIP,
            "image_grid_pinpoints": [[56, 112], [112, 56], [112, 112]],
            "image_token_index": 96,
        },
    ),
    "granite_vision": (
        "granite",
        {
            "model_type": "llava_next",
            "vision_config": SIGLIP,
            "image_grid_pinpoints": [[56, 56], [56, 112], [112, 56], [112, 112]],
            "image_token_index": 96,
            "vision_feature_layer": [-2, -1],
            "vision_feature_select_strategy": "full",
            "tie_word_embeddings": True,
        },
    ),
    "exaone4_5": (
        "exaone4",
        {
            "vision_config": {
                "depth": 3,
                "hidden_size": 32,
                "intermediate_size": 40,
                "num_heads": 4,
                "num_key_value_heads": 2,
                "out_hidden_size": 32,
                "fullatt_block_indexes": [1],
            },
            "image_token_id": 96,
            "video_token_id": 95,
        },
    ),
    "hunyuan_vl": (
        "hunyuan_vl",
        {
            "vision_config": {
                "hidden_size": 32,
                "intermediate_size": 40,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "max_image_size": 112,
                "text_hidden_size": 32,
            },
            "image_token_id": 96,
        },
    ),
    "granite_docling": (
        "granite_docling",
        {
            "vision_config": {
                **SIGLIP,
                "model_type": "granite_docling_vision",
                "out_hidden_size": 32,
                "scale_factor": 2,
                "deepstack_visual_indexes": [0],
            },
            "density_router_hidden_size": 8,
            "image_token_id": 96,
            "pad_token_id": 0,
        },
    ),
    "granite4_vision": (
        "granite4_vision",
        {
            "vision_config": {**SIGLIP, "hidden_size": 64, "image_size": 112},
            "image_grid_pinpoints": [[112, 112], [112, 224], [224, 112], [224, 224]],
            "image_token_index": 96,
            "vision_feature_select_strategy": "full",
            "downsample_rate": "2/4",
            "deepstack_layer_map": [[-2, 2], [-1, 0]],
            "spatial_target_layers": [3, 5, 6, 8],
            "qformer_config": {"intermediate_size": 40},
            "tie_word_embeddings": True,
        },
    ),
    "deepseek_vl": (
        "llama",
        {
            "vision_config": {**SIGLIP, "vision_use_head": False},
            "image_token_id": 96,
            "tie_word_embeddings": False,
        },
    ),
    "deepseek_vl_hybrid": (
        "llama",
        {
            "vision_config": {**SIGLIP, "vision_use_head": False},
            "high_res_vision_config": {
                "model_type": "sam_vision_model",
                "hidden_size": 32,
                "mlp_dim": 40,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "image_size": 80,
                "patch_size": 16,
                "window_size": 3,
                "global_attn_indexes": [1],
                "output_channels": 8,
            },
            "image_token_id": 96,
            "tie_word_embeddings": False,
        },
    ),
    "paligemma": (
        "gemma2",
        {
            "vision_config": {**SIGLIP, "vision_use_head": False},
            "image_token_index": 96,
            "projection_dim": 32,
            "tie_word_embeddings": True,
        },
    ),
    "minicpmv4_6": (
        "qwen3_5",
        {
            "vision_config": {
                "model_type": "minicpmv4_6_vision",
                "hidden_size": 48,
                "intermediate_size": 80,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "image_size": 112,
                "patch_size": 14,
            },
            "insert_layer_id": 0,
            "image_token_id": 96,
            "tie_word_embeddings": False,
        },
    ),
    "minicpm_ocr": (
        "qwen3_5",
        {
            "vision_config": {
                "model_type": "minicpm_ocr_vision",
                "hidden_size": 48,
                "intermediate_size": 80,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "image_size": 112,
                "patch_size": 14,
            },
            "insert_layer_id": 0,
            "image_token_id": 96,
            "tie_word_embeddings": False,
        },
    ),
    "internvl": (
        "qwen3",
        {
            "vision_config": {
                "model_type": "internvl_vision",
                "hidden_size": 48,
                "intermediate_size": 80,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": [56, 56],
                "patch_size": [14, 14],
                "attention_bias": True,
            },
            "image_token_id": 96,
            "tie_word_embeddings": False,
        },
    ),
    "qianfan_ocr": (
        "qwen3",
        {
            "vision_config": {
                "model_type": "qianfan_ocr_vision",
                "hidden_size": 48,
                "intermediate_size": 80,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": [56, 56],
                "patch_size": [14, 14],
            },
            "image_token_id": 96,
            "tie_word_embeddings": False,
        },
    ),
    "shieldgemma2": (
        "gemma3",
        {
            "vision_config": {**SIGLIP, "vision_use_head": False},
            "mm_tokens_per_image": 4,
            "image_token_index": 96,
            "tie_word_embeddings": True,
        },
    ),
    "idefics3": (
        "llama",
        {
            "vision_config": {**SIGLIP, "model_type": "idefics3_vision"},
            "image_token_id": 96,
            "scale_factor": 2,
        },
    ),
    "idefics2": (
        "mistral",
        {
            "vision_config": {**SIGLIP, "model_type": "idefics2_vision"},
            "perceiver_config": {
                "hidden_size": 32,
                "resampler_n_latents": 3,
                "resampler_depth": 2,
                "resampler_n_heads": 4,
                "resampler_head_dim": 8,
                "num_key_value_heads": 2,
            },
            "image_token_id": 96,
        },
    ),
    "smolvlm": (
        "llama",
        {
            "vision_config": {**SIGLIP, "model_type": "smolvlm_vision"},
            "image_token_id": 96,
            "scale_factor": 4,
        },
    ),
    "pixtral": (
        "mistral",
        {
            "model_type": "llava",
            "vision_config": PIXTRAL,
            "image_token_index": 96,
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
        },
    ),
    "mistral3": (
        "mistral",
        {
            "vision_config": PIXTRAL,
            "image_token_index": 96,
            "spatial_merge_size": 2,
            "tie_word_embeddings": False,
        },
    ),
    "janus": (
        "llama",
        {
            "vision_config": {
                "model_type": "janus_vision_model",
                "hidden_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "mlp_ratio": 2.0,
                "image_size": 56,
                "patch_size": 14,
                "projection_dim": 32,
                "depth": 3,
                "num_image_tokens": 16,
            },
            "vq_config": {
                "embed_dim": 4,
                "num_embeddings": 11,
                "latent_channels": 32,
                "base_channels": 32,
                "channel_multiplier": [1, 1],
                "num_res_blocks": 1,
                "projection_dim": 32,
                "image_token_embed_dim": 32,
            },
            "image_token_id": 96,
            "tie_word_embeddings": False,
        },
    ),
    "got_ocr2": (
        "qwen2",
        {
            "vision_config": {
                "model_type": "got_ocr2_vision",
                "hidden_size": 32,
                "mlp_dim": 40,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "image_size": 80,
                "patch_size": 16,
                "window_size": 3,
                "global_attn_indexes": [1],
                "output_channels": 8,
            },
            "image_token_index": 96,
            "tie_word_embeddings": True,
        },
    ),
    "lighton_ocr": (
        "qwen3",
        {
            "vision_config": PIXTRAL,
            "image_token_id": 96,
            "spatial_merge_size": 2,
            "tie_word_embeddings": True,
        },
    ),
    "ministral3": (
        "ministral3",
        {
            "model_type": "mistral3",
            "vision_config": PIXTRAL,
            "image_token_index": 96,
            "spatial_merge_size": 2,
            "tie_word_embeddings": False,
        },
    ),
    "aya_vision": (
        "cohere2",
        {
            "vision_config": {**SIGLIP, "vision_use_head": False},
            "image_token_index": 96,
            "alignment_intermediate_size": 40,
        },
    ),
    "cohere2_vision": (
        "cohere2",
        {
            "vision_config": SIGLIP,
            "image_token_id": 96,
            "alignment_intermediate_size": 40,
        },
    ),
    "ovis2": (
        "qwen2",
        {
            "vision_config": {
                "model_type": "ovis2_vision",
                "hidden_size": 48,
                "intermediate_size": 80,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 56,
                "patch_size": 14,
                "hidden_stride": 2,
                "vocab_size": 61,
            },
            "vocab_size": 97,
            "hidden_size": 32,
            "image_token_id": 96,
            "visual_indicator_token_ids": [91, 92, 93, 94, 95],
            "tie_word_embeddings": False,
        },
    ),
    "paddleocr_vl": (
        "paddleocr_vl",
        {
            "vision_config": {
                "model_type": "paddleocr_vl_vision",
                "hidden_size": 48,
                "intermediate_size": 80,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 70,
                "patch_size": 14,
            },
            "image_token_id": 96,
            "video_token_id": 95,
            "vision_start_token_id": 94,
            "tie_word_embeddings": False,
        },
    ),
    "video_llama_3": (
        "qwen2",
        {
            "vision_config": {
                "model_type": "video_llama_3_vision",
                "hidden_size": 48,
                "intermediate_size": 80,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "patch_size": 14,
            },
            "image_token_id": 96,
            "video_token_id": 95,
            "tie_word_embeddings": False,
        },
    ),
    "video_llava": (
        "llama",
        {
            "vision_config": CLIP,
            "image_token_index": 96,
            "video_token_index": 95,
            "tie_word_embeddings": False,
        },
    ),
    "llava_next_video": (
        "llama",
        {
            "vision_config": CLIP,
            "image_token_index": 96,
            "video_token_index": 95,
            "image_grid_pinpoints": [[56, 112], [112, 56], [112, 112]],
        },
    ),
    "llava_onevision": (
        "qwen2",
        {
            "vision_config": {**SIGLIP, "vision_use_head": False},
            "image_grid_pinpoints": [[h, w] for h in (56, 112, 168) for w in (56, 112, 168)],
            "vision_aspect_ratio": "anyres_max_2",
            "image_token_index": 96,
            "video_token_index": 95,
        },
    ),
}
"""Model types with a tower of their own: the family of the text model, and what is around it."""
SPLIT = {
    "preprocessor_config.json": {
        "size": {"longest_edge": 112},
        "max_image_size": {"longest_edge": 56},
    }
}
FILES = {
    "idefics3": SPLIT,
    "smolvlm": SPLIT,
    "idefics2": {
        "preprocessor_config.json": {
            "size": {"shortest_edge": 28, "longest_edge": 112},
            "do_image_splitting": True,
        }
    },
    "gemma4": {"preprocessor_config.json": {"max_soft_tokens": 70}},
    "granite_docling": {"preprocessor_config.json": {"max_patches": 6}},
    "paddleocr_vl": {
        "preprocessor_config.json": {"min_pixels": 2 * 28 * 28, "max_pixels": 64 * 28 * 28}
    },
    "hunyuan_vl": {"preprocessor_config.json": {"min_pixels": 2048, "max_pixels": 16384}},
    "minicpmv4_6": {"preprocessor_config.json": {"scale_resolution": 112}},
    "minicpm_ocr": {"preprocessor_config.json": {"scale_resolution": 112}},
}
"""What stands beside their config.json."""


def small_model(family: str, folder: Path, **fields: object) -> str:
    """Write the config of a small model of that family; returns its name for a Cell."""
    name = _write(folder / family, _text_model(family, json.dumps(fields)))
    assert resolve(name).family is FAMILIES[family]
    return name


def small_lvlm(family: str, folder: Path, **fields: object) -> str:
    """The same with a small vision tower of its own; returns its name for a Cell."""
    return _write(folder / f"{family}-lvlm", _lvlm(family, json.dumps(fields)), family)


def small_wrapper(kind: str, folder: Path, **fields: object) -> str:
    """A small model of a type with a tower of its own; returns its name for a Cell."""
    return _write(folder / kind, _wrapper(kind, json.dumps(fields)), kind)


def _write(path: Path, config: str, kind: str = "") -> str:
    """Write a model's files; returns its name for a Cell."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(config)
    for file, written in FILES.get(kind, {}).items():
        (path / file).write_text(json.dumps(written))
    return str(path)


@cache
def _text_model(family: str, fields: str) -> str:
    """The config.json of a small text model with those fields, a JSON object, in place of its own.

    Made once for all tests of a process, as transformers takes milliseconds for it.
    """
    return _text_config(family, fields).to_json_string()


@cache
def _lvlm(family: str, fields: str) -> str:
    text = _text_config(family, fields)
    return AutoConfig.for_model(**TOWERS[family], text_config=text.to_dict()).to_json_string()


@cache
def _wrapper(kind: str, fields: str) -> str:
    family, around = WRAPPERS[kind]
    text = _text_config(family, fields).to_dict()
    whole = AutoConfig.for_model(**{"model_type": kind, **around}, text_config=text)
    return whole.to_json_string()


def _text_config(family: str, fields: str) -> PreTrainedConfig:
    return FAMILIES[family].config({**SHARED, **OWN[family], **json.loads(fields)})
