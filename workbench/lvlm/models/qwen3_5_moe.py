"""Qwen3.5 with experts: its layers, whose MLP is many small ones and one that every token meets.

Of 256 experts eight take a token; the shared one's output is weighed by a gate of its own.
"""

from typing import Any

from workbench.lvlm.models import FAMILIES, MODELS, Model
from workbench.lvlm.models.qwen3_5 import LARGE_TOWER, Qwen35, around, mixed_parts, text_fields

FAMILIES.add(
    "qwen3_5_moe",
    Qwen35(
        "qwen3_5_moe_text",
        "qwen3_5_moe",
        "Qwen3_5Moe",
        mixed_parts,
        config_name="Qwen3_5MoeTextConfig",
        lm_name="Qwen3_5MoeForConditionalGeneration",
    ),
)


def _model(size: str, **fields: Any) -> Model:
    return Model(
        "qwen3_5_moe",
        text_fields(num_key_value_heads=2, **fields, tie_word_embeddings=False),
        f"config.json of Qwen/Qwen3.5-{size}",
        tower="qwen3_5_moe",
        around=around("qwen3_5_moe", LARGE_TOWER, fields["hidden_size"], tied=False),
    )


MODELS.add(
    "qwen3.5-35b-a3b",
    _model(
        "35B-A3B",
        hidden_size=2048,
        moe_intermediate_size=512,
        shared_expert_intermediate_size=512,
        num_experts=256,
        num_experts_per_tok=8,
        num_hidden_layers=40,
        num_attention_heads=16,
        linear_num_value_heads=32,
    ),
)
MODELS.add(
    "qwen3.5-397b-a17b",
    _model(
        "397B-A17B",
        hidden_size=4096,
        moe_intermediate_size=1024,
        shared_expert_intermediate_size=1024,
        num_experts=512,
        num_experts_per_tok=10,
        num_hidden_layers=60,
        num_attention_heads=32,
        linear_num_value_heads=64,
    ),
)
