"""DeepSeek-VL: LLaMA's form behind SigLIP, of the larger size behind SAM as well."""

from typing import Any

from workbench.lvlm.models import MODELS, Model

SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 16,
    "hidden_act": "gelu",
    "vision_use_head": False,
}
SAM = {
    "model_type": "sam_vision_model",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 1024,
    "patch_size": 16,
}


def _add(size: str, kind: str, source: str, around: dict[str, Any], **fields: Any) -> None:
    MODELS.add(
        f"deepseek-vl-{size}",
        Model(
            "llama",
            {
                "vocab_size": 102400,
                "max_position_embeddings": 16384,
                "rms_norm_eps": 1e-6,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
                "tie_word_embeddings": False,
                **fields,
            },
            f"{source} of deepseek-community/deepseek-vl-{size}-chat",
            around={
                "model_type": kind,
                "image_token_id": 100015,
                "vision_config": SIGLIP,
                "tie_word_embeddings": False,
                **around,
            },
        ),
    )


_add(
    "1.3b",
    "deepseek_vl",
    "config.json",
    {},
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=24,
    num_attention_heads=16,
    num_key_value_heads=16,
)
_add(
    "7b",
    "deepseek_vl_hybrid",
    "transformers' conversion script",
    {"high_res_vision_config": SAM},
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=30,
    num_attention_heads=32,
    num_key_value_heads=32,
)
