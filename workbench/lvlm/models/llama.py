"""Llama 2 and 3, Vicuna and TinyLlama: two norms, GQA from Llama 3 on."""

from typing import Any

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts.forms import llama_like

FAMILIES.add("llama", Family("llama", "llama", "Llama", llama_like))


def _llama3(factor: float, **fields: Any) -> dict[str, Any]:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    shared = {
        "vocab_size": 128256,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": rope,
    }
    return {**shared, **fields}


_LLAMA_2 = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": False,
}

MODELS.add("llama-2-7b", Model("llama", _LLAMA_2, "config.json of meta-llama/Llama-2-7b-hf"))
MODELS.add("vicuna-7b", Model("llama", _LLAMA_2, "config.json of lmsys/vicuna-7b-v1.5"))
MODELS.add(
    "llama-3.1-8b",
    Model(
        "llama",
        _llama3(
            8.0,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            tie_word_embeddings=False,
        ),
        "config.json of meta-llama/Llama-3.1-8B",
    ),
)
MODELS.add(
    "llama-3.2-1b",
    Model(
        "llama",
        _llama3(
            32.0,
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=16,
            num_attention_heads=32,
            head_dim=64,
            tie_word_embeddings=True,
        ),
        "config.json of meta-llama/Llama-3.2-1B",
    ),
)
MODELS.add(
    "llama-3.2-3b",
    Model(
        "llama",
        _llama3(
            32.0,
            hidden_size=3072,
            intermediate_size=8192,
            num_hidden_layers=28,
            num_attention_heads=24,
            head_dim=128,
            tie_word_embeddings=True,
        ),
        "config.json of meta-llama/Llama-3.2-3B",
    ),
)
MODELS.add(
    "tinyllama-1.1b",
    Model(
        "llama",
        {
            **_LLAMA_2,
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 22,
            "num_key_value_heads": 4,
            "max_position_embeddings": 2048,
        },
        "config.json of TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    ),
)
