"""MiniCPM-V 4.6 and 4.7: Qwen3.5's decoders behind a SigLIP that merges inside of itself."""

from typing import Any

from workbench.lvlm.models import MODELS, Model
from workbench.lvlm.models.qwen3_5 import text_fields

TOWER = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 980,
    "patch_size": 14,
}
QWEN_08B = {
    "hidden_size": 1024,
    "intermediate_size": 3584,
    "num_hidden_layers": 24,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "linear_num_value_heads": 16,
}
QWEN_35B = {
    "hidden_size": 2048,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
    "num_experts": 256,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 40,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "linear_num_value_heads": 32,
}


def _model(family: str, kind: str, tied: bool, source: str, fields: dict[str, Any]) -> Model:
    return Model(
        family,
        text_fields(**fields, tie_word_embeddings=tied),
        source,
        tower=kind,
        around={
            "model_type": kind,
            "insert_layer_id": 6,
            "vision_config": {"model_type": f"{kind}_vision", **TOWER},
            "tie_word_embeddings": tied,
        },
    )


MODELS.add(
    "minicpm-v-4.6",
    _model(
        "qwen3_5",
        "minicpmv4_6",
        True,
        "config.json of openbmb/MiniCPM-V-4.6; heads, vocabulary and RoPE of its text model: of"
        " Qwen/Qwen3.5-0.8B",
        QWEN_08B,
    ),
)
COOKBOOK = (
    "and parameters of openbmb/MiniCPM-V-4.7-{} as OpenSQZ/MiniCPM-V-CookBook has them; tower"
    " taken to be that of openbmb/MiniCPM-V-4.6 (27 layers of patch 14 are stated, widths are not)"
)
MODELS.add(
    "minicpm-v-4.7-1b",
    _model(
        "qwen3_5",
        "minicpmv4_7",
        False,
        f"text_config of Qwen/Qwen3.5-0.8B, its head untied, as the 1.55 B stated say: kind"
        f" {COOKBOOK.format('1B')}",
        QWEN_08B,
    ),
)
MODELS.add(
    "minicpm-v-4.7-35b-a3b",
    _model(
        "qwen3_5_moe",
        "minicpmv4_7",
        False,
        f"text_config of Qwen/Qwen3.5-35B-A3B: kind {COOKBOOK.format('35B-A3B')}",
        QWEN_35B,
    ),
)
