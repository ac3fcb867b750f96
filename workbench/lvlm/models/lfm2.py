"""LFM2: most layers are a gated convolution over three tokens; the others attend to all.

A layer with a convolution keeps what that takes of the last tokens, and no keys and values
(``attention/short_conv.py``). The others have QK-norm and grouped heads of 64. The MLP is two
thirds as wide as config.json states, rounded up, unless that says otherwise; embeddings are tied.
"""

from typing import TYPE_CHECKING, Any, ClassVar

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.forms import rotate_half
from workbench.lvlm.parts.pairless import ShortConv

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig


class Lfm2(Family):
    """Its norms' ε and its final norm have names of their own."""

    norm_name: ClassVar[str] = "embedding_norm"

    def notes(self, config: "PreTrainedConfig") -> list[str]:
        return [
            "gated convolutions: torch's conv1d, which holds and moves more than the kernel of "
            "causal-conv1d"
        ]

    def norm(self, config: "PreTrainedConfig") -> "nn.Module":
        norm: nn.Module = self.from_transformers("Lfm2RMSNorm")(
            config.hidden_size, eps=config.norm_eps
        )
        return norm


def mixed_parts(layer: Any) -> LayerParts:
    """Parts of a layer with keys and values, and of one with a convolution in their place."""
    shared: dict[str, Any] = {
        "layer": layer,
        "input_norm": layer.operator_norm,
        "post_attention_norm": None,
        "mlp_norm": layer.ffn_norm,
        "mlp": layer.feed_forward,
        "post_mlp_norm": None,
        "softcap": None,
        "window": None,
    }
    if not layer.is_attention_layer:
        width = layer.conv.conv.in_channels
        return LayerParts(
            **shared,
            attention=layer.conv,
            q_norm=None,
            k_norm=None,
            hidden_size=width,
            num_heads=1,
            num_kv_heads=1,
            head_dim=width,
            scale=1.0,
            rope=lambda x, cos, sin: x,
            linear=ShortConv(width, layer.conv.conv_kernel_size),
        )
    attention, config = layer.self_attn, layer.self_attn.config
    return LayerParts(
        **shared,
        attention=attention,
        q_norm=attention.q_layernorm,
        k_norm=attention.k_layernorm,
        hidden_size=config.hidden_size,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=attention.head_dim,
        scale=attention.scaling,
        rope=rotate_half,
    )


FAMILIES.add("lfm2", Lfm2("lfm2", "lfm2", "Lfm2", mixed_parts))

EVERY_FEW = (2, 5, 8, 10, 12, 14)
"""Of 16 layers, those that attend."""
EVERY_FOURTH = (2, 5, 9, 13, 17, 21, 24, 27)
"""Of 30."""
BASE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
"""SigLIP 2 base/16."""
SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
}
"""SigLIP 2 so400m/16."""


def _model(
    size: str, text: dict[str, Any], attending: tuple[int, ...], tower: dict[str, Any]
) -> Model:
    layers = text["num_hidden_layers"]
    return Model(
        "lfm2",
        {
            "vocab_size": 65536,
            "num_key_value_heads": 8,
            "max_position_embeddings": 128000,
            "norm_eps": 1e-5,
            "conv_L_cache": 3,
            "conv_bias": False,
            "block_multiple_of": 256,
            "block_ffn_dim_multiplier": 1.0,
            "layer_types": ["full_attention" if i in attending else "conv" for i in range(layers)],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "tie_word_embeddings": True,
            **text,
        },
        f"config.json of LiquidAI/LFM2-VL-{size}",
        around={
            "model_type": "lfm2_vl",
            "vision_config": {
                "model_type": "siglip2_vision_model",
                "num_channels": 3,
                "patch_size": 16,
                "num_patches": 256,
                "vision_use_head": False,
                **tower,
            },
            "downsample_factor": 2,
            "projector_bias": True,
            "projector_hidden_act": "gelu",
            "projector_hidden_size": 2560,
            "tie_word_embeddings": True,
        },
    )


MODELS.add(
    "lfm2-vl-450m",
    _model(
        "450M",
        {
            "hidden_size": 1024,
            "intermediate_size": 6656,
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
            "block_auto_adjust_ff_dim": True,
        },
        EVERY_FEW,
        BASE,
    ),
)
MODELS.add(
    "lfm2-vl-1.6b",
    _model(
        "1.6B",
        {
            "hidden_size": 2048,
            "intermediate_size": 12288,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "block_auto_adjust_ff_dim": True,
        },
        EVERY_FEW,
        {**SO400M, "num_hidden_layers": 26},
    ),
)
MODELS.add(
    "lfm2-vl-3b",
    _model(
        "3B",
        {
            "hidden_size": 2048,
            "intermediate_size": 10752,
            "num_hidden_layers": 30,
            "num_attention_heads": 32,
            "block_auto_adjust_ff_dim": False,
        },
        EVERY_FOURTH,
        SO400M,
    ),
)
