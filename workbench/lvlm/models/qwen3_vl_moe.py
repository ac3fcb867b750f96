"""Qwen3-VL with experts: Qwen3-VL's layer whose MLP is 128 small ones, 8 of them for a token."""

from typing import Any

from workbench.lvlm.models import FAMILIES, MODELS, Model
from workbench.lvlm.models.mrope import MRope
from workbench.lvlm.models.qwen3_vl import LARGE_TOWER, around, text_fields
from workbench.lvlm.parts.forms import llama_like

FAMILIES.add(
    "qwen3_vl_moe",
    MRope(
        "qwen3_vl_moe_text",
        "qwen3_vl_moe",
        "Qwen3VLMoeText",
        llama_like,
        lm_name="Qwen3VLMoeForConditionalGeneration",
        deepstack=True,
    ),
)


def _model(size: str, **fields: Any) -> Model:
    shared = {
        "num_key_value_heads": 4,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "tie_word_embeddings": False,
    }
    return Model(
        "qwen3_vl_moe",
        text_fields(**shared, **fields),
        f"config.json of Qwen/Qwen3-VL-{size}-Instruct",
        tower="qwen3_vl_moe",
        around=around("qwen3_vl_moe", LARGE_TOWER, fields["hidden_size"], tied=False),
    )


MODELS.add(
    "qwen3-vl-30b-a3b",
    _model(
        "30B-A3B",
        hidden_size=2048,
        intermediate_size=6144,
        moe_intermediate_size=768,
        num_hidden_layers=48,
        num_attention_heads=32,
    ),
)
MODELS.add(
    "qwen3-vl-235b-a22b",
    _model(
        "235B-A22B",
        hidden_size=4096,
        intermediate_size=12288,
        moe_intermediate_size=1536,
        num_hidden_layers=94,
        num_attention_heads=64,
    ),
)
