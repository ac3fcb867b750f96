"""Llama 4: three layers in chunks of 8,192 tokens to one without RoPE that sees everything.

Queries and keys under RoPE are normed after it by an L2 norm without weights; a rotation leaves a
norm as it is, so D-Attn's un-rotated T2V has normed ones too. Queries of the layers without RoPE
are scaled by their position. A text row sees the text of its own chunk; a pair without RoPE has no
distance, so that no chunk hides an image from D-Attn's T2V, as no window does in other families.
Each layer has an expert that every token meets and sixteen of which a router chooses one.
transformers multiplies every token with all sixteen, those not chosen with zeros: so do FLOPs and
seconds here.
"""

from typing import Any

import torch
from torch import Tensor, nn

from workbench.lvlm.layout import Chunk
from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts import LayerParts, OwnTiles
from workbench.lvlm.parts.experts import Experts
from workbench.lvlm.parts.forms import as_it_is
from workbench.lvlm.parts.marks import run_unmasked
from workbench.vocabulary.errors import Unsupported

SCALING = ("yarn", "longrope")
"""Kinds of RoPE whose tables are multiplied by a factor, which a norm after it would take away."""


class Llama4(Family):
    """Rotary tables are complex numbers; kinds of layers are chosen by index."""

    def plain_only(self, config: Any) -> str:
        kind = config.rope_parameters["rope_type"]
        if not config.use_qk_norm or kind not in SCALING:
            return ""
        return f"norms queries and keys after a RoPE ({kind}) that makes them longer"

    def scales_queries(self, config: Any, index: int) -> bool:
        return bool(config.attn_temperature_tuning and not config.no_rope_layers[index])

    def query_factor(self, config: Any, positions: Tensor) -> Tensor:
        steps = torch.floor((positions.float() + 1) / config.floor_scale)
        return torch.log1p(steps) * config.attn_scale + 1

    def variant(self, config: Any, index: int) -> bool:
        return bool(config.no_rope_layers[index])

    def experts(self, config: Any) -> Experts | None:
        return Experts(config.num_experts_per_tok, config.num_local_experts, every=True)

    def router(self, layer: Any) -> nn.Module | None:
        return getattr(layer.feed_forward, "router", None)

    def settle(self, layer: Any, device: torch.device, dtype: torch.dtype) -> None:
        """Batched matmuls of experts are no pairs of a mask, and say so."""
        experts = getattr(layer.feed_forward, "experts", None)
        if experts is not None:
            run_unmasked(experts, "forward")

    def cos_sin(
        self, rotary: nn.Module, like: Tensor, positions: Tensor, layer_type: str
    ) -> tuple[Tensor, Tensor]:
        turns = torch.view_as_real(rotary(like, positions.unsqueeze(0)))
        return turns[..., 0].contiguous(), turns[..., 1].contiguous()

    def given(self, tables: tuple[Tensor, Tensor]) -> Tensor:
        return torch.complex(*tables)


class AllExperts(OwnTiles):
    """The experts of a layer, whose call also returns the router's scores."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, D]."""
        outputs: Tensor = self.inner(hidden)[0]
        return outputs.view(hidden.shape)

    def tile(self, tile: int) -> None:
        raise Unsupported("tiled: the experts of llama4_text are one call over all tokens")


def rotate_pairs(x: Tensor, cos_bsr: Tensor, sin_bsr: Tensor) -> Tensor:
    """RoPE over neighbours in float32 or wider; x is [B, heads, S, K], the tables [B, S, K/2]."""
    cos, sin = cos_bsr.unsqueeze(1), sin_bsr.unsqueeze(1)
    wide = x if x.dtype == torch.float64 else x.float()
    left, right = wide[..., 0::2], wide[..., 1::2]
    turned = torch.stack((left * cos - right * sin, left * sin + right * cos), -1)
    return turned.flatten(-2).to(x.dtype)


def _parts(layer: Any) -> LayerParts:
    attention, config = layer.self_attn, layer.self_attn.config
    chunked = config.layer_types[attention.layer_idx] == "chunked_attention"
    mlp = layer.feed_forward
    norm = getattr(attention, "qk_norm", None)
    experts = Experts(mlp.top_k, mlp.num_experts, every=True) if layer.is_moe_layer else None
    return LayerParts(
        layer=layer,
        attention=attention,
        input_norm=layer.input_layernorm,
        post_attention_norm=None,
        mlp_norm=layer.post_attention_layernorm,
        mlp=mlp if experts is None else AllExperts(mlp),
        post_mlp_norm=None,
        q_norm=norm,
        k_norm=norm,
        hidden_size=config.hidden_size,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=attention.head_dim,
        scale=attention.scaling,
        softcap=None,
        window=Chunk(config.attention_chunk_size) if chunked else None,
        rope=rotate_pairs if attention.use_rope else as_it_is,
        experts=experts,
    )


FAMILIES.add(
    "llama4", Llama4("llama4_text", "llama4", "Llama4Text", _parts, lm_name="Llama4ForCausalLM")
)

MODELS.add(
    "llama-4-scout-17b-16e",
    Model(
        "llama4",
        {
            "vocab_size": 202048,
            "hidden_size": 5120,
            "intermediate_size": 8192,
            "intermediate_size_mlp": 16384,
            "num_hidden_layers": 48,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 10485760,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 16.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
            },
            "num_local_experts": 16,
            "num_experts_per_tok": 1,
            "interleave_moe_layer_step": 1,
            "use_qk_norm": True,
            "attention_chunk_size": 8192,
            "attn_scale": 0.1,
            "floor_scale": 8192,
            "tie_word_embeddings": False,
        },
        "config.json of meta-llama/Llama-4-Scout-17B-16E-Instruct",
        tower="llama4",
        around={
            "model_type": "llama4",
            "vision_config": {
                "model_type": "llama4_vision_model",
                "hidden_size": 1408,
                "intermediate_size": 5632,
                "num_hidden_layers": 34,
                "num_attention_heads": 16,
                "image_size": 336,
                "patch_size": 14,
                "pixel_shuffle_ratio": 0.5,
                "projector_input_dim": 4096,
                "projector_output_dim": 4096,
                "vision_output_dim": 4096,
            },
            "tie_word_embeddings": False,
        },
    ),
)
