"""HyperCLOVA X: Granite's factors, and a norm after attention and MLP as well as before.

Embeddings, what a layer adds to its rows, scores and logits are multiplied by numbers of the
config. Where a wrapper is around it, visual rows are multiplied as embeddings are.
"""

from typing import Any, ClassVar

from torch import nn

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.models.granite import Factor
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.forms import rotate_half, sandwiched


class HyperClovaX(Family):
    """Its class multiplies embeddings and logits, and so does the wrapper's."""

    scaling_wholes: ClassVar[frozenset[str]] = frozenset({"hyperclovax_vision_v2"})

    def embed_scale(self, config: Any) -> float:
        return float(config.embedding_multiplier)

    def visual_scale(self, config: Any) -> float:
        return self.embed_scale(config)

    def logit_scale(self, config: Any) -> float | None:
        scale = float(config.logits_scaling)
        return None if scale == 1 else scale


def peri_normed(layer: Any) -> LayerParts:
    """Parts of a layer whose added rows are normed and multiplied, where the config says so."""
    factor = layer.residual_multiplier
    norms: list[nn.Module | None] = []
    for norm in (layer.post_norm1, layer.post_norm2):
        if factor != 1:
            norms.append(nn.Sequential(norm, Factor(factor)))
        else:
            norms.append(None if isinstance(norm, nn.Identity) else norm)
    return sandwiched(layer, rotate_half, norms[0], layer.post_attention_layernorm, norms[1])


FAMILIES.add("hyperclovax", HyperClovaX("hyperclovax", "hyperclovax", "HyperCLOVAX", peri_normed))

MODELS.add(
    "hyperclovax-seed-think-14b",
    Model(
        "hyperclovax",
        {
            "vocab_size": 110592,
            "hidden_size": 6144,
            "intermediate_size": 14336,
            "num_hidden_layers": 38,
            "num_attention_heads": 48,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e8},
            "embedding_multiplier": 10.0,
            "logits_scaling": 0.125,
            "residual_multiplier": 1.0,
            "attention_multiplier": 0.0078125,
            "use_post_norm": True,
            "tie_word_embeddings": False,
        },
        "config.json of naver-hyperclovax/HyperCLOVAX-SEED-Think-14B, from memory; its 14.74B "
        "parameters are those of transformers' page of it",
    ),
)
