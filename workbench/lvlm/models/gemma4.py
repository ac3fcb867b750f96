"""Gemma 4: five local layers to one global, whose heads are wider and whose values are the keys.

Queries, keys and values are normed over a head, and scores are not scaled. A global layer (heads
of 512) projects keys alone; its values are these under a norm of their own, and its RoPE turns a
quarter of a head. The 26B-A4B has experts beside each MLP. Embeddings for every layer and layers
that share keys and values (E2B, E4B) are refused.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.lvlm.chunked import Tiled, token_chunks
from workbench.lvlm.experts import Experts
from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts import LayerParts, OwnTiles, rotate_half
from workbench.lvlm.training import GEMMA
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Gemma4(Family):
    """Local and global layers differ in their heads and in their rotary tables."""

    def check(self, name: str, config: Any) -> None:
        if config.hidden_size_per_layer_input:
            raise RequestError(
                f"model {name!r}: hidden_size_per_layer_input "
                f"{config.hidden_size_per_layer_input}: embeddings for every layer, which no part "
                "of this package expresses (0 is served: 31B, 26B-A4B)"
            )
        if config.num_kv_shared_layers:
            raise RequestError(
                f"model {name!r}: num_kv_shared_layers {config.num_kv_shared_layers}: layers that "
                "share keys and values, which no part of this package expresses (0 is served)"
            )
        if config.use_bidirectional_attention == "all":
            raise RequestError(
                f"model {name!r}: use_bidirectional_attention 'all': every mask here is causal"
            )
        if config.enable_moe_block:
            for field in ("num_experts", "top_k_experts", "moe_intermediate_size"):
                if not getattr(config, field):
                    raise RequestError(
                        f"model {name!r}: {field} is missing; enable_moe_block needs it"
                    )

    def notes(self, config: Any) -> list[str]:
        if config.use_bidirectional_attention != "vision":
            return []
        return [
            "attention: causal; in the local layers of the released model tokens of an image also "
            "see those after them in it, inside the window, which no mask here has"
        ]

    def settle(self, layer: Any, device: torch.device, dtype: torch.dtype) -> None:
        layer.layer_scalar = torch.ones(1, device=device, dtype=dtype)

    def experts(self, config: Any) -> Experts | None:
        experts = Experts(config.top_k_experts, config.num_experts)
        return experts if config.enable_moe_block else None

    def router(self, layer: Any) -> nn.Module | None:
        return layer.router.proj if layer.enable_moe_block else None

    def norm(self, config: "PreTrainedConfig") -> nn.Module:
        """The norms have no name of the text model's own."""
        return self.from_transformers("Gemma4RMSNorm")(config.hidden_size, eps=config.rms_norm_eps)

    def cos_sin(
        self, rotary: nn.Module, like: Tensor, positions: Tensor, layer_type: str
    ) -> tuple[Tensor, Tensor]:
        return rotary(like, positions.unsqueeze(0), layer_type)


class DenseAndExperts(OwnTiles):
    """An MLP that every token meets and experts beside it, with the norms around both.

    The modules are the layer's own; the MLP reads rows of one norm, the experts those of another,
    and the router rows without either.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.of = [layer]  # No child: its forward calls the modules below.
        self.mlp, self.router, self.experts = layer.mlp, layer.router, layer.experts
        self.norm, self.norm_1 = (
            layer.pre_feedforward_layernorm,
            layer.post_feedforward_layernorm_1,
        )
        self.norm_2 = layer.pre_feedforward_layernorm_2
        self.norm_3 = layer.post_feedforward_layernorm_2

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, D]."""
        dense = self.norm_1(self.mlp(self.norm(hidden)))
        flat = hidden.reshape(-1, hidden.shape[-1])
        _, weights, experts = self.router(flat)
        routed = self.experts(self.norm_2(flat), experts, weights)
        both: Tensor = dense + self.norm_3(routed.reshape(hidden.shape))
        return both

    def tile(self, tile: int) -> None:
        (layer,) = self.of
        self.mlp = layer.mlp = Tiled(self.mlp, tile)
        self.experts = layer.experts = TiledExperts(self.experts, tile)


class TiledExperts(nn.Module):
    """Experts in tiles of tokens."""

    def __init__(self, inner: nn.Module, tile: int) -> None:
        super().__init__()
        self.inner, self.tile = inner, tile

    def forward(self, rows: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """[n, D], and the experts of each row [n, k] with their weights -> [n, D]."""
        if rows.shape[0] <= self.tile:
            return self.inner(rows, chosen, weights)
        inputs = [x[None] for x in (rows, chosen, weights)]
        own = list(self.inner.parameters())

        def run(*parts: Tensor) -> tuple[Tensor]:
            return (self.inner(*(x[0] for x in parts))[None],)

        return token_chunks(run, self.tile, inputs, own)[0][0]


def _parts(layer: Any) -> LayerParts:
    attention, config = layer.self_attn, layer.self_attn.config
    return LayerParts(
        layer=layer,
        attention=attention,
        input_norm=layer.input_layernorm,
        post_attention_norm=layer.post_attention_layernorm,
        mlp_norm=nn.Identity() if layer.enable_moe_block else layer.pre_feedforward_layernorm,
        mlp=DenseAndExperts(layer) if layer.enable_moe_block else layer.mlp,
        post_mlp_norm=layer.post_feedforward_layernorm,
        q_norm=attention.q_norm,
        k_norm=attention.k_norm,
        v_norm=attention.v_norm,
        hidden_size=config.hidden_size,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_attention_heads // attention.num_key_value_groups,
        head_dim=attention.head_dim,
        scale=attention.scaling,
        softcap=None,
        window=attention.sliding_window,
        rope=rotate_half,
        experts=Experts(config.top_k_experts, config.num_experts)
        if layer.enable_moe_block
        else None,
        out_scale=layer.layer_scalar,
        alone={"shared_kv_states": None},
    )


FAMILIES.add(
    "gemma4",
    Gemma4(
        "gemma4_text",
        "gemma4",
        "Gemma4Text",
        _parts,
        lm_name="Gemma4ForCausalLM",
        scaled_embeddings=True,
        training=GEMMA,
    ),
)


def _model(name: str, **fields: Any) -> Model:
    shared = {
        "vocab_size": 262144,
        "head_dim": 256,
        "global_head_dim": 512,
        "attention_k_eq_v": True,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0,
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-6,
        "sliding_window": 1024,
        "final_logit_softcapping": 30.0,
        "use_bidirectional_attention": "vision",
        "rope_parameters": {
            "full_attention": {
                "rope_type": "proportional",
                "partial_rotary_factor": 0.25,
                "rope_theta": 1e6,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
        "tie_word_embeddings": True,
    }
    return Model(
        "gemma4",
        {**shared, **fields},
        f"config.json of google/{name}",
        tower="gemma4",
        around={
            "model_type": "gemma4",
            "vision_config": {
                "model_type": "gemma4_vision",
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "num_key_value_heads": 16,
                "head_dim": 72,
                "patch_size": 16,
                "pooling_kernel_size": 3,
                "position_embedding_size": 10240,
                "standardize": True,
            },
            "tie_word_embeddings": True,
        },
    )


MODELS.add(
    "gemma-4-31b",
    _model(
        "gemma-4-31B-it",
        hidden_size=5376,
        intermediate_size=21504,
        num_hidden_layers=60,
        num_attention_heads=32,
        num_key_value_heads=16,
        num_global_key_value_heads=4,
        enable_moe_block=False,
    ),
)
MODELS.add(
    "gemma-4-26b-a4b",
    _model(
        "gemma-4-26B-A4B-it",
        hidden_size=2816,
        intermediate_size=2112,
        num_hidden_layers=30,
        num_attention_heads=16,
        num_key_value_heads=8,
        num_global_key_value_heads=2,
        enable_moe_block=True,
        num_experts=128,
        top_k_experts=8,
        moe_intermediate_size=704,
    ),
)
