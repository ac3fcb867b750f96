"""ERNIE 4.5 VL: of 64 experts a token of text meets six, a visual row six of 64 smaller ones.

Both meet a shared MLP beside them; the first layer's MLP is one. RoPE turns neighbours, those of
rows and columns in turn, then those of time. S-Attn finds the rows of either kind by their places,
D-Attn and its kin have them in two streams; what has one sequence besides is refused. Routers are
held in float32, as transformers has them.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.lvlm.models import FAMILIES, MODELS, Model
from workbench.lvlm.models.mrope import MRope
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.experts import Experts
from workbench.lvlm.parts.forms import llama_like
from workbench.lvlm.parts.modal import ModalExperts, modal_parts
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Ernie45VL(MRope):
    """Which layers have experts stands in ``mlp_layer_types``."""

    modal = True

    def experts(self, config: Any) -> Experts:
        return Experts(config.moe_k, config.moe_num_experts)

    def notes(self, config: Any) -> list[str]:
        visual, text = config.moe_intermediate_size[1], config.moe_intermediate_size[0]
        return [
            f"experts: {config.moe_num_experts} of text, {text:,} wide, and as many of visual "
            f"rows, {visual:,} wide: FLOPs are of each row's own, spread evenly over those of its "
            "kind; active_params are what a token of text meets; start and end of an image, which "
            "transformers counts among its rows, are text"
        ]

    def layer(self, config: "PreTrainedConfig", index: int) -> nn.Module:
        layer: Any = super().layer(config, index)
        if hasattr(layer.mlp, "vision_moe"):
            layer.mlp = ModalExperts(layer.mlp)
        made: nn.Module = layer
        return made

    def rotary(self, config: "PreTrainedConfig") -> nn.Module:
        made: nn.Module = self.from_transformers("Ernie4_5_VLMoeTextRotaryEmbedding")(config)
        return made

    def settle(self, layer: Any, device: torch.device, dtype: torch.dtype) -> None:
        if not isinstance(layer.mlp, ModalExperts):
            return
        for block in (layer.mlp.text_moe, layer.mlp.vision_moe):
            gate: Any = block.gate
            gate.weight = nn.Parameter(gate.weight.detach().float())
            bias = gate.moe_statics.e_score_correction_bias.detach().float()
            gate.moe_statics.e_score_correction_bias = nn.Parameter(bias, requires_grad=False)

    def check(self, name: str, config: Any) -> None:
        kinds, widths = config.mlp_layer_types, config.moe_intermediate_size
        if len(kinds) != config.num_hidden_layers or set(kinds) - {"dense", "sparse"}:
            raise RequestError(
                f"model {name!r}: mlp_layer_types {kinds!r:.60}: dense or sparse for each of the "
                f"{config.num_hidden_layers} layers"
            )
        if len(widths) != 2:
            raise RequestError(
                f"model {name!r}: moe_intermediate_size {widths!r:.60}: two, of the experts of "
                "text and of visual rows"
            )


def rotate_neighbours(x: Tensor, cos_bsk: Tensor, sin_bsk: Tensor) -> Tensor:
    """RoPE over neighbours in float32 or wider; x is [B, heads, S, K], the tables [B, S, K]."""
    wide = x if x.dtype == torch.float64 else x.float()
    left, right = wide[..., 0::2], wide[..., 1::2]
    turned = torch.stack((-right, left), -1).flatten(-2)
    out = wide * cos_bsk.unsqueeze(1) + turned * sin_bsk.unsqueeze(1)
    return out.to(x.dtype)


def _parts(layer: Any) -> LayerParts:
    return modal_parts(llama_like(layer, rotate_neighbours))


FAMILIES.add(
    "ernie4_5_vl_moe",
    Ernie45VL(
        "ernie4_5_vl_moe_text",
        "ernie4_5_vl_moe",
        "Ernie4_5_VLMoe",
        _parts,
        config_name="Ernie4_5_VLMoeTextConfig",
        lm_name="Ernie4_5_VLMoeForConditionalGeneration",
    ),
)

MODELS.add(
    "ernie-4.5-vl-28b-a3b",
    Model(
        "ernie4_5_vl_moe",
        {
            "vocab_size": 103424,
            "hidden_size": 2560,
            "intermediate_size": 12288,
            "num_hidden_layers": 28,
            "num_attention_heads": 20,
            "num_key_value_heads": 4,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 500000.0,
                "mrope_section": [22, 22, 20],
            },
            "use_bias": False,
            "moe_intermediate_size": [1536, 512],
            "moe_k": 6,
            "moe_num_experts": 64,
            "moe_num_shared_experts": 2,
            "mlp_layer_types": ["dense"] + ["sparse"] * 27,
            "tie_word_embeddings": True,
        },
        "config.json of baidu/ERNIE-4.5-VL-28B-A3B-PT, by the defaults of transformers' "
        "Ernie4_5_VLMoeConfig, made for it",
        tower="ernie4_5_vl_moe",
        around={
            "model_type": "ernie4_5_vl_moe",
            "vision_config": {
                "model_type": "ernie4_5_vl_moe_vision",
                "depth": 32,
                "hidden_size": 1280,
                "intermediate_size": 5120,
                "num_heads": 16,
                "in_channels": 3,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_merge_size": 2,
                "rms_norm_eps": 1e-6,
            },
            "tie_word_embeddings": True,
        },
    ),
)
