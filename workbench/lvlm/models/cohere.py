"""Command R: attention and MLP side by side after one norm, logits times a scale.

The norm has no bias and takes the mean off. RoPE turns neighbours, in float32. Command R+ norms
queries and keys, each head by weights of its own.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts import LayerParts, Rope
from workbench.lvlm.parts.forms import sandwiched
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from torch import nn


class Cohere(Family):
    """Its norm is no RMSNorm, and its class multiplies logits."""

    def norm(self, config: Any) -> "nn.Module":
        norm: nn.Module = self.from_transformers(f"{self.prefix}LayerNorm")(
            hidden_size=config.hidden_size, eps=config.layer_norm_eps
        )
        return norm

    def logit_scale(self, config: Any) -> float:
        return float(config.logit_scale)

    def check(self, name: str, config: Any) -> None:
        if config.logit_scale is None:
            raise RequestError(
                f"model {name!r}: logit_scale None: a number above 0, with which transformers "
                "multiplies logits"
            )


def turn_neighbours(x: Tensor, cos_bsk: Tensor, sin_bsk: Tensor) -> Tensor:
    """RoPE of pairs of neighbours, in float32 whatever the dtype; x is [B, heads, S, K]."""
    wide = x.float()
    turned = torch.stack((-wide[..., 1::2], wide[..., ::2]), -1).flatten(-2)
    return (wide * cos_bsk.unsqueeze(1) + turned * sin_bsk.unsqueeze(1)).to(x.dtype)


def side_by_side(layer: Any, rope: Rope = turn_neighbours) -> LayerParts:
    """Parts of a layer whose attention and MLP read the rows of one norm."""
    return replace(sandwiched(layer, rope, None, layer.input_layernorm, None), parallel=True)


FAMILIES.add("cohere", Cohere("cohere", "cohere", "Cohere", side_by_side))

MODELS.add(
    "command-r",
    Model(
        "cohere",
        {
            "vocab_size": 256000,
            "hidden_size": 8192,
            "intermediate_size": 22528,
            "num_hidden_layers": 40,
            "num_attention_heads": 64,
            "num_key_value_heads": 64,
            "max_position_embeddings": 8192,
            "layer_norm_eps": 1e-5,
            "logit_scale": 0.0625,
            "use_qk_norm": False,
            "tie_word_embeddings": True,
        },
        "config.json of CohereLabs/c4ai-command-r-v01, by the defaults of transformers' "
        "CohereConfig, which name it",
    ),
)
