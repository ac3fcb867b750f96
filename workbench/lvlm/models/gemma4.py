"""Gemma 4: five local layers to one global, whose heads are wider and whose values are the keys.

Queries, keys and values are normed over a head, and scores are not scaled. A global layer (heads
of 512) projects keys alone; its values are these under a norm of their own, and its RoPE turns a
quarter of a head. The 26B-A4B has experts beside each MLP. In the E2B and E4B, whose global layers
have values of their own, an embedding that each id has for every layer alone comes behind the MLP;
visual rows have that of the padding, as transformers gives them. Their last layers have queries
alone: they attend with keys and values of the last local or global layer before them, and nothing
of them is cached; in the E2B their MLPs are twice as wide. Decomposed systems share keys and
values of both streams so (``attention/per_layer_systems.py``).
"""

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.models.around import PerLayerEmbeddings
from workbench.lvlm.optimizers.settings import GEMMA
from workbench.lvlm.parts import LayerParts, OwnTiles
from workbench.lvlm.parts.chunked import Tiled, token_chunks
from workbench.lvlm.parts.experts import Experts
from workbench.lvlm.parts.forms import rotate_half
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Gemma4(Family):
    """Local and global layers differ in their heads and in their rotary tables."""

    def check(self, name: str, config: Any) -> None:
        width, shared = config.hidden_size_per_layer_input, config.num_kv_shared_layers
        if width < 0:
            raise RequestError(
                f"model {name!r}: hidden_size_per_layer_input {width}: a whole number from 0"
            )
        if shared and not width:
            raise RequestError(
                f"model {name!r}: num_kv_shared_layers {shared} with hidden_size_per_layer_input "
                "0: layers share keys and values only where each has embeddings of its own"
            )
        count = config.num_hidden_layers
        if not 0 <= shared < count:
            raise RequestError(
                f"model {name!r}: num_kv_shared_layers {shared}: layers that share keys and "
                f"values, 0 to {count - 1}"
            )
        least = min(config.vocab_size, config.vocab_size_per_layer_input)
        padding = config.pad_token_id
        if width and not (isinstance(padding, int) and 0 <= padding < least):
            raise RequestError(
                f"model {name!r}: pad_token_id {padding}: the id whose embeddings for every layer "
                f"visual rows have, 0 to {least - 1}"
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

    def per_layer(self, config: Any) -> bool:
        return bool(config.hidden_size_per_layer_input)

    def around(self, config: "PreTrainedConfig") -> PerLayerEmbeddings:
        return Embeddings(self, config)

    def variant(self, config: Any, index: int) -> Hashable:
        """Whether keys and values are those that others share, or are others'."""
        return config.kv_sharing_modes[index]

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


class Embeddings(PerLayerEmbeddings):
    """Scaled by plain numbers."""

    def __init__(self, family: Family, config: Any) -> None:
        super().__init__(family, config, "Gemma4")
        self.visual_id = config.pad_token_id
        self.per_layer_model_projection_scale = config.hidden_size**-0.5
        self.per_layer_input_scale = 2.0**-0.5


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


def _own_input(layer: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """What an embedding for that layer alone adds to a row behind its MLP."""

    def add(hidden: Tensor, own: Tensor) -> Tensor:
        gated = layer.act_fn(layer.per_layer_input_gate(hidden)) * own
        added: Tensor = layer.post_per_layer_input_norm(layer.per_layer_projection(gated))
        return hidden + added

    return add


def _parts(layer: Any) -> LayerParts:
    attention, config = layer.self_attn, layer.self_attn.config
    embedded = layer.hidden_size_per_layer_input
    return LayerParts(
        layer=layer,
        attention=attention,
        input_norm=layer.input_layernorm,
        post_attention_norm=layer.post_attention_layernorm,
        mlp_norm=nn.Identity() if layer.enable_moe_block else layer.pre_feedforward_layernorm,
        mlp=DenseAndExperts(layer) if layer.enable_moe_block else layer.mlp,
        post_mlp_norm=layer.post_feedforward_layernorm,
        q_norm=attention.q_norm,
        k_norm=getattr(attention, "k_norm", None),  # None where the layer takes another's.
        v_norm=getattr(attention, "v_norm", None),
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
        own_input=_own_input(layer) if embedded else None,
        own_input_elements=2 * config.hidden_size * embedded,
        gives_keys=attention.store_full_length_kv,
        takes_keys=attention.is_kv_shared_layer,
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


ROPE = {
    "full_attention": {
        "rope_type": "proportional",
        "partial_rotary_factor": 0.25,
        "rope_theta": 1e6,
    },
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}


def _large(name: str, **fields: Any) -> Model:
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
        "rope_parameters": ROPE,
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
    _large(
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
    _large(
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


def _small(size: str, locals_a_global: int, **fields: Any) -> Model:
    count = fields["num_hidden_layers"]
    unit = locals_a_global + 1
    return Model(
        "gemma4",
        {
            "vocab_size": 262144,
            "vocab_size_per_layer_input": 262144,
            "hidden_size_per_layer_input": 256,
            "num_attention_heads": 8,
            "head_dim": 256,
            "global_head_dim": 512,
            "attention_k_eq_v": False,
            "hidden_activation": "gelu_pytorch_tanh",
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-6,
            "sliding_window": 512,
            "final_logit_softcapping": 30.0,
            "use_bidirectional_attention": None,
            "enable_moe_block": False,
            "pad_token_id": 0,
            "layer_types": [
                f"{'sliding' if (i + 1) % unit else 'full'}_attention" for i in range(count)
            ],
            "rope_parameters": ROPE,
            "tie_word_embeddings": True,
            **fields,
        },
        f"transformers' conversion script of google/gemma-4-{size} (convert_gemma4_weights.py) "
        "and the defaults of Gemma4TextConfig, Gemma4VisionConfig and Gemma4AudioConfig",
        tower="gemma4",
        around={
            "model_type": "gemma4",
            "vision_config": {
                "model_type": "gemma4_vision",
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_hidden_layers": 16,
                "num_attention_heads": 12,
                "num_key_value_heads": 12,
                "head_dim": 64,
                "patch_size": 16,
                "pooling_kernel_size": 3,
                "position_embedding_size": 10240,
                "use_clipped_linears": True,
            },
            "audio_config": {"model_type": "gemma4_audio"},
            "tie_word_embeddings": True,
        },
    )


MODELS.add(
    "gemma-4-e2b",
    _small(
        "E2B",
        locals_a_global=4,
        hidden_size=1536,
        intermediate_size=6144,
        num_hidden_layers=35,
        num_key_value_heads=1,
        num_kv_shared_layers=20,
        use_double_wide_mlp=True,
    ),
)
MODELS.add(
    "gemma-4-e4b",
    _small(
        "E4B",
        locals_a_global=5,
        hidden_size=2560,
        intermediate_size=10240,
        num_hidden_layers=42,
        num_key_value_heads=2,
        num_kv_shared_layers=18,
        use_double_wide_mlp=False,
    ),
)
