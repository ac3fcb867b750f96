"""Qwen3: two norms, GQA, queries and keys normed head by head; the small ones tie embeddings."""

from typing import Any

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts.forms import llama_like

FAMILIES.add("qwen3", Family("qwen3", "qwen3", "Qwen3", llama_like))


def qwen3(
    hidden: int, mlp: int, layers: int, heads: int, tied: bool = False, **fields: Any
) -> dict[str, Any]:
    """The published fields of a size; all have 8 key/value heads of 128."""
    return {
        "vocab_size": 151936,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40960,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "use_sliding_window": False,
        "tie_word_embeddings": tied,
        **fields,
    }


SIZES = {
    "0.6b": qwen3(1024, 3072, 28, 16, tied=True),
    "1.7b": qwen3(2048, 6144, 28, 16, tied=True),
    "4b": qwen3(2560, 9728, 36, 32, tied=True),
    "8b": qwen3(4096, 12288, 36, 32),
    "14b": qwen3(5120, 17408, 40, 40),
    "32b": qwen3(5120, 25600, 64, 64),
}
for _size, _fields in SIZES.items():
    MODELS.add(
        f"qwen3-{_size}", Model("qwen3", _fields, f"config.json of Qwen/Qwen3-{_size.upper()}")
    )
