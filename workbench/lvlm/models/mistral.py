"""Mistral: two norms, GQA; v0.3 has no sliding window."""

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts.forms import llama_like

FAMILIES.add("mistral", Family("mistral", "mistral", "Mistral", llama_like))

MODELS.add(
    "mistral-7b-v0.3",
    Model(
        "mistral",
        {
            "vocab_size": 32768,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_window": None,
            "tie_word_embeddings": False,
        },
        "config.json of mistralai/Mistral-7B-v0.3",
    ),
)
