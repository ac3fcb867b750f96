"""DeepSeek V3, also Kimi K2's decoder: latent attention and experts.

Heads of queries and keys are 192 wide, a third of them rotated, and those of values 128: eager,
math and the packages of FlashAttention are served. The first layers' MLP is one; of the experts of
the others, which a router with a bias chooses in groups, a token meets 8 and a shared one. The
layer that published checkpoints have for predicting two tokens is left out, as transformers does.
"""

from workbench.lvlm.models import FAMILIES, MODELS, Model
from workbench.lvlm.models.biased import Biased
from workbench.lvlm.models.mistral4 import Latent, latent_parts


class DeepseekV3(Biased, Latent):
    """Its routers have a bias."""


FAMILIES.add(
    "deepseek_v3",
    DeepseekV3(
        "deepseek_v3", "deepseek_v3", "DeepseekV3", latent_parts, config_name="DeepseekV3Config"
    ),
)

MODELS.add(
    "kimi-k2.5",
    Model(
        "deepseek_v3",
        {
            "vocab_size": 163840,
            "hidden_size": 7168,
            "intermediate_size": 18432,
            "moe_intermediate_size": 2048,
            "num_hidden_layers": 61,
            "num_attention_heads": 64,
            "num_key_value_heads": 64,
            "kv_lora_rank": 512,
            "q_lora_rank": 1536,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "n_routed_experts": 384,
            "n_shared_experts": 1,
            "num_experts_per_tok": 8,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.827,
            "max_position_embeddings": 262144,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 50000.0,
                "factor": 64.0,
                "original_max_position_embeddings": 4096,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
            },
            "tie_word_embeddings": False,
        },
        "config.json of moonshotai/Kimi-K2.5",
        around={
            "model_type": "kimi_k25",
            "vision_config": {
                "model_type": "kimi_k25_vision",
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "patch_size": 14,
                "merge_kernel_size": [2, 2],
                "pos_emb_height": 64,
                "pos_emb_width": 64,
                "pos_emb_time": 4,
            },
            "projection_hidden_size": 1152,
            "tie_word_embeddings": False,
        },
    ),
)
