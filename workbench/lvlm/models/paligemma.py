"""PaliGemma and PaliGemma 2: Gemma, Gemma 2 behind SigLIP so400m/14 at three resolutions."""

from typing import Any

from workbench.lvlm.models import MODELS, Model

EDGES = (224, 448, 896)
COMMON = {
    "vocab_size": 257216,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": True,
}


def _around(edge: int, hidden: int) -> dict[str, Any]:
    return {
        "model_type": "paligemma",
        "image_token_index": 257152,
        "projection_dim": hidden,
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "image_size": edge,
            "patch_size": 14,
            "vision_use_head": False,
        },
        "tie_word_embeddings": True,
    }


def _add(size: str, **fields: Any) -> None:
    for edge in EDGES:
        MODELS.add(
            f"paligemma2-{size}-{edge}",
            Model(
                "gemma2",
                {
                    **COMMON,
                    "hidden_activation": "gelu_pytorch_tanh",
                    "sliding_window": 4096,
                    "attn_logit_softcapping": 50.0,
                    "final_logit_softcapping": 30.0,
                    **fields,
                },
                f"transformers' conversion script of google/paligemma2-{size}-pt-{edge}",
                around=_around(edge, fields["hidden_size"]),
            ),
        )


for _edge in EDGES:
    MODELS.add(
        f"paligemma-3b-{_edge}",
        Model(
            "gemma",
            {
                **COMMON,
                "hidden_size": 2048,
                "intermediate_size": 16384,
                "num_hidden_layers": 18,
                "num_attention_heads": 8,
                "num_key_value_heads": 1,
                "head_dim": 256,
                "hidden_act": "gelu_pytorch_tanh",
            },
            f"transformers' conversion script of google/paligemma-3b-pt-{_edge}",
            around=_around(_edge, 2048),
        ),
    )

_add(
    "3b",
    hidden_size=2304,
    intermediate_size=9216,
    num_hidden_layers=26,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=256,
    query_pre_attn_scalar=256,
)
_add(
    "10b",
    hidden_size=3584,
    intermediate_size=14336,
    num_hidden_layers=42,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=256,
    query_pre_attn_scalar=256,
)
_add(
    "28b",
    hidden_size=4608,
    intermediate_size=36864,
    num_hidden_layers=46,
    num_attention_heads=32,
    num_key_value_heads=16,
    head_dim=128,
    query_pre_attn_scalar=144,
)
