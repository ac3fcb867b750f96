"""InternVL3, 3.5 and Qianfan-OCR as transformers takes them: Qwen2.5 and Qwen3 under InternViT.

All have an LM head of their own. InternVL3.5's own form drops tokens by a router (Flash), which
transformers lacks; these are the models without it.
"""

from typing import Any

from workbench.lvlm.models import MODELS, Model
from workbench.lvlm.models.qwen2 import qwen2_5
from workbench.lvlm.models.qwen3 import SIZES
from workbench.lvlm.models.qwen3_moe import SIZES as EXPERTS

VIT_300M = {
    "model_type": "internvl_vision",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "attention_bias": True,
    "use_qk_norm": False,
    "norm_type": "layer_norm",
    "image_size": [448, 448],
    "patch_size": [14, 14],
}
"""vision_config of OpenGVLab/InternVL3-1B-hf: InternViT-300M-448px-V2_5."""
VIT_6B = {
    "model_type": "internvl_vision",
    "hidden_size": 3200,
    "intermediate_size": 12800,
    "num_hidden_layers": 45,
    "num_attention_heads": 25,
    "attention_bias": False,
    "use_qk_norm": True,
    "norm_type": "rms_norm",
    "image_size": [448, 448],
    "patch_size": [14, 14],
}
"""vision_config of OpenGVLab/InternVL3-38B-hf: InternViT-6B-448px-V2_5."""


def _around(tower: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "internvl",
        "vision_config": tower,
        "downsample_ratio": 0.5,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
    }


def _qwen2_5(hidden: int, mlp: int, layers: int, heads: int, groups: int) -> dict[str, Any]:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e6}
    sizes = qwen2_5(151674, hidden, mlp, layers, heads, groups, tied=False)
    return {**sizes, "rope_parameters": rope}


_THREE = {
    "1b": _qwen2_5(896, 4864, 24, 14, 2),
    "2b": _qwen2_5(1536, 8960, 28, 12, 2),
    "8b": _qwen2_5(3584, 18944, 28, 28, 4),
    "14b": _qwen2_5(5120, 13824, 48, 40, 8),
    "38b": _qwen2_5(5120, 27648, 64, 40, 8),
}
for _size, _fields in _THREE.items():
    MODELS.add(
        f"internvl3-{_size}",
        Model(
            "qwen2",
            _fields,
            f"config.json of OpenGVLab/InternVL3-{_size.upper()}-hf",
            around=_around(VIT_6B if _size == "38b" else VIT_300M),
        ),
    )

_THREE_FIVE = {
    "1b": "0.6b",
    "2b": "1.7b",
    "4b": "4b",
    "8b": "8b",
    "14b": "14b",
    "38b": "32b",
}
"""The Qwen3 inside each."""
for _size, _text in _THREE_FIVE.items():
    MODELS.add(
        f"internvl3.5-{_size}",
        Model(
            "qwen3",
            {**SIZES[_text], "tie_word_embeddings": False},
            f"config.json of OpenGVLab/InternVL3_5-{_size.upper()}-HF",
            around=_around(VIT_6B if _size == "38b" else VIT_300M),
        ),
    )

for _size, _text in {"30b-a3b": "30b-a3b", "241b-a28b": "235b-a22b"}.items():
    MODELS.add(
        f"internvl3.5-{_size}",
        Model(
            "qwen3_moe",
            EXPERTS[_text],
            f"config.json of OpenGVLab/InternVL3_5-{_size.upper()}-HF",
            around=_around(VIT_6B if _size == "241b-a28b" else VIT_300M),
        ),
    )

MODELS.add(
    "qianfan-ocr",
    Model(
        "qwen3",
        {**SIZES["4b"], "tie_word_embeddings": False},
        "config.json of Qwen/Qwen3-4B, which the card of baidu/Qianfan-OCR names, with 24 layers "
        "and an adapter from 1,024, and the defaults of transformers' QianfanOCRConfig",
        around={
            **_around(
                {**VIT_300M, "model_type": "qianfan_ocr_vision", "drop_path_rate": 0.1},
            ),
            "model_type": "qianfan_ocr",
        },
    ),
)
