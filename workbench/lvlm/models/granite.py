"""Granite: Llama's layer with four constants; Granite Vision 3 and 4.1, Granite for Docling.

Embeddings, visual ones with them, are multiplied by one constant, what attention and MLP add to
the residual by another, and scores by a third in place of the root of a head's size; logits are
divided by the last. Granite Vision 4.1 adds its visual features to the residual alone, after the
embeddings' factor, and has nothing in their place before.
"""

from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.forms import llama_like
from workbench.visual.llava_next import GRANITE


class Factor(nn.Module):
    """What stands where other families have a norm after the attention, or after the MLP."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, D]."""
        return x * self.factor


def granite_like(layer: Any) -> LayerParts:
    """Parts of Llama's layer whose two sums are of the residual and of so much of the rest."""
    factor = Factor(layer.residual_multiplier)
    return replace(llama_like(layer), post_attention_norm=factor, post_mlp_norm=factor)


class Granite(Family):
    """Its constants: transformers' class around Granite Vision 3 leaves logits as they are."""

    scaling_wholes: ClassVar[frozenset[str]] = frozenset({"granite4_vision", "granite_docling"})

    def embed_scale(self, config: Any) -> float:
        return float(config.embedding_multiplier)

    def visual_scale(self, config: Any) -> float:
        return self.embed_scale(config)

    def logit_scale(self, config: Any) -> float:
        return 1 / float(config.logits_scaling)


class Granite4Vision(Granite):
    """Its visual features are added to the residual, which has been multiplied."""

    def visual_scale(self, config: Any) -> float:
        return 1.0


FAMILIES.add("granite", Granite("granite", "granite", "Granite", granite_like))
FAMILIES.add(
    "granite4_vision",
    Granite4Vision(
        "granite4_vision_text",
        "granite4_vision",
        "Granite4VisionText",
        granite_like,
        lm_name="Granite4VisionForConditionalGeneration",
        deepstack=True,
    ),
)

FAMILIES.add(
    "granite_docling",
    Granite(
        "granite_docling_text",
        "granite_docling",
        "GraniteDoclingText",
        granite_like,
        lm_name="GraniteDoclingForConditionalGeneration",
        deepstack=True,
    ),
)

PINPOINTS = [list(pair) for pair in GRANITE]
SO400M = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
}
for _version in ("3.2", "3.3"):
    MODELS.add(
        f"granite-vision-{_version}-2b",
        Model(
            "granite",
            {
                "vocab_size": 49156,
                "hidden_size": 2048,
                "intermediate_size": 8192,
                "num_hidden_layers": 40,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "max_position_embeddings": 131072,
                "rms_norm_eps": 1e-5,
                "rope_parameters": {"rope_type": "default", "rope_theta": 300000.0},
                "embedding_multiplier": 12.0,
                "attention_multiplier": 0.015625,
                "residual_multiplier": 0.22,
                "logits_scaling": 8.0,
                "tie_word_embeddings": True,
            },
            f"config.json of ibm-granite/granite-vision-{_version}-2b, whose text_config is "
            "written from memory; its tower and grids as llama.cpp's README quotes them",
            around={
                "model_type": "llava_next",
                "vision_config": {**SO400M, "patch_size": 14},
                "image_grid_pinpoints": PINPOINTS,
                "projector_hidden_act": "gelu",
                "vision_feature_layer": [-24, -20, -12, -1],
                "vision_feature_select_strategy": "full",
                "tie_word_embeddings": True,
            },
        ),
    )
MODELS.add(
    "granite-vision-4.1-4b",
    Model(
        "granite4_vision",
        {
            "vocab_size": 100353,
            "hidden_size": 2560,
            "intermediate_size": 8192,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e7},
            "embedding_multiplier": 12.0,
            "attention_multiplier": 0.015625,
            "residual_multiplier": 0.22,
            "logits_scaling": 10.0,
            "tie_word_embeddings": True,
        },
        "config.json of ibm-granite/granite-vision-4.1-4b, as another repository's test quotes "
        "it; its Q-Formers by the defaults of transformers' Granite4VisionConfig",
        tower="granite4_vision",
        around={
            "model_type": "granite4_vision",
            "vision_config": {**SO400M, "patch_size": 16},
            "image_grid_pinpoints": PINPOINTS,
            "downsample_rate": "4/8",
            "deepstack_layer_map": [[-19, 9], [-13, 6], [-7, 3], [-1, 0]],
            "spatial_vision_layer": -1,
            "spatial_target_layers": [12, 15, 18, 21],
            "vision_feature_select_strategy": "full",
            "tie_word_embeddings": True,
        },
    ),
)
MODELS.add(
    "granite-for-docling-500m",
    Model(
        "granite_docling",
        {
            "vocab_size": 133800,
            "hidden_size": 1024,
            "intermediate_size": 2048,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "embedding_multiplier": 12.0,
            "attention_multiplier": 0.015625,
            "residual_multiplier": 0.263,
            "logits_scaling": 4.0,
            "tie_word_embeddings": True,
        },
        "config.json of ibm-granite/granite-for-docling-500m, by the defaults of transformers' "
        "GraniteDoclingConfig, which name it",
        tower="granite_docling",
        around={
            "model_type": "granite_docling",
            "vision_config": {
                "model_type": "granite_docling_vision",
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "image_size": 512,
                "patch_size": 16,
                "out_hidden_size": 1024,
                "scale_factor": 4,
                "deepstack_visual_indexes": [3, 7, 10],
                "use_fine_route": True,
            },
            "tie_word_embeddings": True,
        },
    ),
)
