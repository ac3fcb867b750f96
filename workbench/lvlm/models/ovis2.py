"""Ovis2: Qwen2.5 under AIMv2, whose patches become mixtures of visual words."""

from typing import Any

from workbench.lvlm.models import MODELS, Model
from workbench.lvlm.models.qwen2 import qwen2_5


def _aimv2(hidden: int, mlp: int, heads: int) -> dict[str, Any]:
    """vision_config with one of AIMv2's sizes, whose patches of 14 pixels fill 448."""
    return {
        "model_type": "ovis2_vision",
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": 24,
        "num_attention_heads": heads,
        "image_size": 448,
        "patch_size": 14,
        "hidden_stride": 2,
        "vocab_size": 65536,
        "num_visual_indicator_tokens": 5,
        "tokenize_function": "softmax",
    }


LARGE, HUGE, BILLION = (
    _aimv2(1024, 2816, 8),
    _aimv2(1536, 4096, 12),
    _aimv2(2048, 5632, 16),
)
"""apple/aimv2-large-, -huge- and -1B-patch14-448."""


_SIZES = {
    "1b": (LARGE, qwen2_5(151936, 896, 4864, 24, 14, 2, tied=True)),
    "2b": (LARGE, qwen2_5(151936, 1536, 8960, 28, 12, 2, tied=True)),
    "4b": (HUGE, qwen2_5(151936, 2048, 11008, 36, 16, 2, tied=True)),
    "8b": (HUGE, qwen2_5(152064, 3584, 18944, 28, 28, 4, tied=False)),
    "16b": (HUGE, qwen2_5(152064, 5120, 13824, 48, 40, 8, tied=False)),
    "34b": (BILLION, qwen2_5(152064, 5120, 27648, 64, 40, 8, tied=False)),
}
for _size, (_tower, _fields) in _SIZES.items():
    MODELS.add(
        f"ovis2-{_size}",
        Model(
            "qwen2",
            _fields,
            f"transformers' conversion script of AIDC-AI/Ovis2-{_size.upper()}, and its card, "
            "which names its parts; their sizes, hidden_stride and the 65,536 visual words are "
            "written from memory",
            around={
                "model_type": "ovis2",
                "vision_config": _tower,
                "vocab_size": _fields["vocab_size"],
                "hidden_size": _fields["hidden_size"],
                "tie_word_embeddings": _fields["tie_word_embeddings"],
            },
        ),
    )
