"""Command R7B and Command A: Command R's layer, three windowed with RoPE to one global without.

Aya Vision and Command A Vision are these behind SigLIP; transformers' classes of the two do not
multiply logits, which a flag says.
"""

from typing import Any

from workbench.lvlm.models import FAMILIES, MODELS, Model
from workbench.lvlm.models.cohere import Cohere, side_by_side, turn_neighbours
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.forms import as_it_is


def _parts(layer: Any) -> LayerParts:
    turned = layer.self_attn.sliding_window is not None
    return side_by_side(layer, turn_neighbours if turned else as_it_is)


FAMILIES.add("cohere2", Cohere("cohere2", "cohere2", "Cohere2", _parts))

_SHARED = {
    "vocab_size": 256000,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "layer_norm_eps": 1e-5,
    "sliding_window": 4096,
    "logit_scale": 0.25,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0},
    "tie_word_embeddings": True,
}
R7B = {
    **_SHARED,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
COMMAND_A = {
    **_SHARED,
    "hidden_size": 12288,
    "intermediate_size": 36864,
    "num_hidden_layers": 64,
    "num_attention_heads": 96,
}
MODELS.add(
    "command-r7b",
    Model(
        "cohere2",
        R7B,
        "config.json of CohereLabs/c4ai-command-r7b-12-2024, as other repositories quote it",
    ),
)
MODELS.add(
    "command-a",
    Model(
        "cohere2",
        COMMAND_A,
        "config.json of CohereLabs/c4ai-command-a-03-2025, as other repositories quote it",
    ),
)
SO400M = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "vision_use_head": False,
}
MODELS.add(
    "aya-vision-8b",
    Model(
        "cohere2",
        R7B,
        "config.json of CohereLabs/aya-vision-8b, whose vision_config and "
        "alignment_intermediate_size are written from memory",
        around={
            "model_type": "aya_vision",
            "vision_config": {**SO400M, "image_size": 364, "patch_size": 14},
            "alignment_intermediate_size": 28672,
            "downsample_factor": 2,
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "tie_word_embeddings": True,
        },
    ),
)
MODELS.add(
    "command-a-vision",
    Model(
        "cohere2",
        COMMAND_A,
        "config.json of CohereLabs/command-a-vision-07-2025, whose vision_use_head is written "
        "from memory",
        around={
            "model_type": "cohere2_vision",
            "vision_config": {**SO400M, "image_size": 512, "patch_size": 16},
            "alignment_intermediate_size": 36864,
            "downsample_factor": 2,
            "tie_word_embeddings": True,
        },
    ),
)
