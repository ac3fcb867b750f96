"""Qwen3.5: three layers of four are Gated DeltaNet, linear in |V|; the fourth is full attention.

A linear layer keeps a state of 128 × 128 a head and what its convolution of 4 tokens saw, and no
keys and values. The full layers have heads of 256, QK-norm, interleaved M-RoPE over a quarter of
a head, and a gate a head by which their output is multiplied before W_o. The extra layer that
published checkpoints have for predicting two tokens (``mtp``) is left out, as transformers does.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from workbench.lvlm.models import FAMILIES, MODELS, Model
from workbench.lvlm.models.mrope import MRope
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.forms import linear_like, llama_like, rotate_first
from workbench.lvlm.parts.pairless import Linear
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig


class Qwen35(MRope):
    """Its rotary embedding is the text model's, other pieces have no such word in their name."""

    def rotary(self, config: "PreTrainedConfig") -> "nn.Module":
        rotary: nn.Module = self.from_transformers(f"{self.prefix}TextRotaryEmbedding")(config)
        return rotary

    def check(self, name: str, config: "PreTrainedConfig") -> None:
        if getattr(config, "attn_output_gate", True) is not True:
            raise RequestError(
                f"model {name!r}: attn_output_gate {config.attn_output_gate!r:.60}: true, for "
                "transformers builds the gate in any case"
            )

    def notes(self, config: "PreTrainedConfig") -> list[str]:
        return [
            "linear layers: gated delta rule and convolution in torch's operators, which hold and "
            "move more than the kernels of flash-linear-attention and causal-conv1d; a prediction "
            "times their float32 products at the rate of the cell's dtype"
        ]


def mixed_parts(layer: Any) -> LayerParts:
    """Parts of a full layer, and of a linear one, whose attention has no keys and values."""
    own = getattr(layer, "linear_attn", None)
    if own is None:
        return replace(llama_like(layer, rotate_first), gated=True)
    sizes = Linear(
        own.num_k_heads, own.num_v_heads, own.head_k_dim, own.head_v_dim, own.conv_kernel_size
    )
    return linear_like(layer, own, sizes)


FAMILIES.add(
    "qwen3_5",
    Qwen35(
        "qwen3_5_text",
        "qwen3_5",
        "Qwen3_5",
        mixed_parts,
        config_name="Qwen3_5TextConfig",
        lm_name="Qwen3_5ForConditionalGeneration",
    ),
)

SMALL_TOWER = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096}
"""Of the 2B and 4B models."""
LARGE_TOWER = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304}
"""Of the others."""


def text_fields(**fields: Any) -> dict[str, Any]:
    """A published text_config: what all sizes share, and the fields of one."""
    return {
        "vocab_size": 248320,
        "head_dim": 256,
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-6,
        "full_attention_interval": 4,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e7,
            "partial_rotary_factor": 0.25,
            "mrope_section": [11, 11, 10],
            "mrope_interleaved": True,
        },
        **fields,
    }


def around(model_type: str, tower: dict[str, Any], hidden_size: int, tied: bool) -> dict[str, Any]:
    """The fields of a published config.json around its text_config."""
    return {
        "model_type": model_type,
        "vision_config": {
            "model_type": model_type,
            "in_channels": 3,
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": hidden_size,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            **tower,
        },
        "tie_word_embeddings": tied,
    }


def _model(size: str, tower: dict[str, Any], tied: bool, **fields: Any) -> Model:
    return Model(
        "qwen3_5",
        text_fields(**fields, tie_word_embeddings=tied),
        f"config.json of Qwen/Qwen3.5-{size}",
        tower="qwen3_5",
        around=around("qwen3_5", tower, fields["hidden_size"], tied),
    )


MODELS.add(
    "qwen3.5-2b",
    _model(
        "2B",
        SMALL_TOWER,
        True,
        hidden_size=2048,
        intermediate_size=6144,
        num_hidden_layers=24,
        num_attention_heads=8,
        num_key_value_heads=2,
        linear_num_value_heads=16,
    ),
)
MODELS.add(
    "qwen3.5-4b",
    _model(
        "4B",
        SMALL_TOWER,
        True,
        hidden_size=2560,
        intermediate_size=9216,
        num_hidden_layers=32,
        num_attention_heads=16,
        num_key_value_heads=4,
        linear_num_value_heads=32,
    ),
)
MODELS.add(
    "qwen3.5-9b",
    _model(
        "9B",
        LARGE_TOWER,
        False,
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=32,
        num_attention_heads=16,
        num_key_value_heads=4,
        linear_num_value_heads=32,
    ),
)
MODELS.add(
    "qwen3.5-27b",
    _model(
        "27B",
        LARGE_TOWER,
        False,
        hidden_size=5120,
        intermediate_size=17408,
        num_hidden_layers=64,
        num_attention_heads=24,
        num_key_value_heads=4,
        linear_num_value_heads=48,
    ),
)
