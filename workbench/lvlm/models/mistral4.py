"""Mistral Small 4: latent attention and experts under Pixtral's tower.

A cache has a latent of 256 numbers and a rotated part of 64 of each token, of which keys and
values of all 32 heads are made (``lvlm/parts/latent.py``); heads of queries and keys are half
rotated. Queries beyond the original context are scaled by their position. Of 128 experts four
take a token, and a shared one every token.
"""

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.models.ministral3 import Ministral3
from workbench.lvlm.models.pixtral import merged, tower
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.experts import Experts
from workbench.lvlm.parts.forms import sandwiched
from workbench.lvlm.parts.latent import LatentParts, turn_last
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Latent(Family):
    """Keys and values are made of latents."""

    latent: ClassVar[bool] = True

    def notes(self, config: "PreTrainedConfig") -> list[str]:
        return [
            "latent attention: a decode step makes keys and values of all cached tokens anew, as "
            "transformers' class does; engines whose kernels read latents multiply less"
        ]

    def experts(self, config: "PreTrainedConfig") -> Experts:
        return Experts(config.num_experts_per_tok, config.n_routed_experts)

    def check(self, name: str, config: Any) -> None:
        heads, groups = config.num_attention_heads, config.num_key_value_heads
        if heads != groups:
            raise RequestError(
                f"model {name!r}: num_key_value_heads {groups}: {heads} as num_attention_heads, "
                "for keys and values of every head are made of one latent"
            )
        if config.qk_rope_head_dim % 2:
            raise RequestError(
                f"model {name!r}: qk_rope_head_dim {config.qk_rope_head_dim}: rotary embeddings "
                "need an even one"
            )
        for field in ("n_routed_experts", "n_shared_experts", "num_experts_per_tok"):
            if not getattr(config, field):
                raise RequestError(f"model {name!r}: {field} is missing; its experts need it")


def latent_parts(layer: Any) -> LayerParts:
    """Parts of a layer with two norms whose attention is latent."""
    attention, config = layer.self_attn, layer.self_attn.config
    attention.head_dim = attention.qk_head_dim

    def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        if cos.shape[-1] != config.qk_rope_head_dim:
            raise ValueError(
                f"rotary embeddings of {cos.shape[-1]} numbers, and qk_rope_head_dim is "
                f"{config.qk_rope_head_dim}"
            )
        return turn_last(x, cos, sin, config.rope_interleave)

    plain = sandwiched(layer, rope, None, layer.post_attention_layernorm, None)
    return LatentParts(**vars(plain))


class Mistral4(Latent, Ministral3):
    """Its queries are scaled as Ministral 3's."""


FAMILIES.add(
    "mistral4", Mistral4("mistral4", "mistral4", "Mistral4", latent_parts, scaled_queries=True)
)

MODELS.add(
    "mistral-small-4-119b",
    Model(
        "mistral4",
        {
            "vocab_size": 131072,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "moe_intermediate_size": 2048,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "kv_lora_rank": 256,
            "q_lora_rank": 1024,
            "qk_nope_head_dim": 64,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "n_routed_experts": 128,
            "n_shared_experts": 1,
            "num_experts_per_tok": 4,
            "first_k_dense_replace": 0,
            "n_group": 1,
            "topk_group": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 1.0,
            "max_position_embeddings": 1048576,
            "rms_norm_eps": 1e-6,
            "rope_interleave": True,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 128.0,
                "original_max_position_embeddings": 8192,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "llama_4_scaling_beta": 0.1,
                "partial_rotary_factor": 0.5,
            },
            "tie_word_embeddings": False,
        },
        "config.json of mistralai/Mistral-Small-4-119B-2603",
        around=merged(tower(14, 1540), tied=False),
    ),
)
