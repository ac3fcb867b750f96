"""Gemma 3: four norms, QK-norm, five local layers (window, their own RoPE base) to one global."""

from typing import TYPE_CHECKING

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts import gemma_like
from workbench.lvlm.training import GEMMA

if TYPE_CHECKING:
    from torch import Tensor, nn


class Gemma3(Family):
    """Local and global layers rotate with different frequencies."""

    def cos_sin(
        self, rotary: "nn.Module", like: "Tensor", positions: "Tensor", layer_type: str
    ) -> "tuple[Tensor, Tensor]":
        return rotary(like, positions.unsqueeze(0), layer_type)


FAMILIES.add(
    "gemma3",
    Gemma3(
        "gemma3_text",
        "gemma3",
        "Gemma3",
        gemma_like,
        config_name="Gemma3TextConfig",
        scaled_embeddings=True,
        training=GEMMA,
    ),
)

MODELS.add(
    "gemma-3-4b",
    Model(
        "gemma3",
        {
            "vocab_size": 262208,
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 34,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh",
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-6,
            "query_pre_attn_scalar": 256,
            "sliding_window": 1024,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
            "tie_word_embeddings": True,
        },
        "text_config of config.json of google/gemma-3-4b-pt",
        tower="gemma3",
    ),
)
