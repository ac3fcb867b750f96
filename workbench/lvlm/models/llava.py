"""LLaVA 1.5, ViP-LLaVA, Video-LLaVA, LLaVA-NeXT, -Video and -OneVision under their own towers."""

from typing import Any

from workbench.lvlm.models import MODELS, Model
from workbench.lvlm.models.qwen2 import qwen2_5
from workbench.visual.llava_next import PINPOINTS
from workbench.visual.llava_onevision import EDGES

CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
"""vision_config of llava-hf's checkpoints of LLaVA 1.5 and LLaVA-NeXT: CLIP L/14 at 336."""
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}
"""vision_config of llava-hf's checkpoints of LLaVA-OneVision: SigLIP without its last layer."""
CLIPPED = {
    "vision_config": CLIP,
    "projector_hidden_act": "gelu",
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "tie_word_embeddings": False,
}
ONE = {"model_type": "llava", **CLIPPED}
NEXT = {
    "model_type": "llava_next",
    "image_grid_pinpoints": [list(pair) for pair in PINPOINTS],
    **CLIPPED,
}


def _llama_2(hidden: int, mlp: int, layers: int, heads: int) -> dict[str, Any]:
    """Vicuna 1.5, with the tokens that LLaVA adds."""
    return {
        "vocab_size": 32064,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": False,
    }


_VICUNA = {
    "7b": _llama_2(4096, 11008, 32, 32),
    "13b": _llama_2(5120, 13824, 40, 40),
}
for _size, _fields in _VICUNA.items():
    MODELS.add(
        f"llava-1.5-{_size}",
        Model("llama", _fields, f"config.json of llava-hf/llava-1.5-{_size}-hf", around=ONE),
    )
    MODELS.add(
        f"llava-next-vicuna-{_size}",
        Model(
            "llama", _fields, f"config.json of llava-hf/llava-v1.6-vicuna-{_size}-hf", around=NEXT
        ),
    )
    MODELS.add(
        f"vip-llava-{_size}",
        Model(
            "llama",
            _fields,
            f"transformers' conversion script of llava-hf/vip-llava-{_size}-hf",
            around={
                "model_type": "vipllava",
                "vision_config": CLIP,
                "projector_hidden_act": "gelu",
                "projector_layernorm_eps": 1e-5,
                "vision_feature_layers": [-2, -5, -8, -11, 6],
                "tie_word_embeddings": False,
            },
        ),
    )
MODELS.add(
    "video-llava-7b",
    Model(
        "llama",
        _VICUNA["7b"],
        "config.json of LanguageBind/Video-LLaVA-7B-hf, by the defaults of transformers' "
        "VideoLlavaConfig, and from memory its text_config, Vicuna's",
        around={
            **CLIPPED,
            "model_type": "video_llava",
            "vision_config": {**CLIP, "image_size": 224, "vocab_size": 32000},
        },
    ),
)
MODELS.add(
    "llava-next-mistral-7b",
    Model(
        "mistral",
        {
            "vocab_size": 32064,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_window": None,
            "tie_word_embeddings": False,
        },
        "config.json of llava-hf/llava-v1.6-mistral-7b-hf",
        around=NEXT,
    ),
)
for _size, _family, _from in (
    ("7b", "llama", "llava-next-vicuna-7b"),
    ("7b-32k", "mistral", "llava-next-mistral-7b"),
):
    MODELS.add(
        f"llava-next-video-{_size}",
        Model(
            _family,
            MODELS[_from].fields,
            f"transformers' conversion script of llava-hf/LLaVA-NeXT-Video-{_size.upper()}-hf",
            around={
                **NEXT,
                "model_type": "llava_next_video",
                "spatial_pool_mode": "average",
                "spatial_pool_stride": 2,
            },
        ),
    )


_QWEN2 = {
    "0.5b": qwen2_5(152000, 896, 4864, 24, 14, 2, tied=True),
    "7b": qwen2_5(152128, 3584, 18944, 28, 28, 4, tied=False),
    "72b": qwen2_5(152128, 8192, 29568, 80, 64, 8, tied=False),
}
for _size, _fields in _QWEN2.items():
    MODELS.add(
        f"llava-onevision-{_size}",
        Model(
            "qwen2",
            _fields,
            f"config.json of llava-hf/llava-onevision-qwen2-{_size}-ov-hf",
            around={
                "model_type": "llava_onevision",
                "vision_config": SIGLIP,
                "image_grid_pinpoints": [[high, wide] for high in EDGES for wide in EDGES],
                "vision_aspect_ratio": "anyres_max_9",
                "projector_hidden_act": "gelu",
                "vision_feature_layer": -1,
                "vision_feature_select_strategy": "full",
                "tie_word_embeddings": _fields["tie_word_embeddings"],
            },
        ),
    )
