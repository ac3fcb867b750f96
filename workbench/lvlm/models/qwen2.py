"""Qwen2: two norms, GQA, biases on q, k and v; the small one ties its embeddings."""

from typing import Any

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts.forms import llama_like

FAMILIES.add("qwen2", Family("qwen2", "qwen2", "Qwen2", llama_like))


def qwen2_5(
    vocab: int, hidden: int, mlp: int, layers: int, heads: int, groups: int, tied: bool
) -> dict[str, Any]:
    """Fields of Qwen2 and 2.5, of such sizes, without windows."""
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "use_sliding_window": False,
        "tie_word_embeddings": tied,
    }


_SHARED = {
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "use_sliding_window": False,
}

MODELS.add(
    "qwen2-0.5b",
    Model(
        "qwen2",
        {
            **_SHARED,
            "vocab_size": 151936,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
        "config.json of Qwen/Qwen2-0.5B",
    ),
)
MODELS.add(
    "qwen2-7b",
    Model(
        "qwen2",
        {
            **_SHARED,
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "tie_word_embeddings": False,
        },
        "config.json of Qwen/Qwen2-7B",
    ),
)
