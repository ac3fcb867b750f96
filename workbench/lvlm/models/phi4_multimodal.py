"""Phi-4-multimodal: two norms, queries, keys and values of one matrix, RoPE over 3/4 of a head.

So are gate and up of its MLP. RoPE is LongRoPE's: other frequencies from 4,096 tokens on. Beside
the decoder's matrices the released model runs LoRA adapters of its own where it is shown images or
speech; transformers' class has none, and so have these numbers, which every record says.
"""

from typing import TYPE_CHECKING, Any

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.forms import llama_like, rotate_first
from workbench.lvlm.parts.joined import share_out
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ADAPTERS = (
    "adapters: left out, as in transformers' class; the released model runs LoRA of its own "
    "beside the decoder's matrices where it is shown images or speech"
)


class Phi4Multimodal(Family):
    """One configuration has the fields of the text model and the sections of both encoders."""

    def check(self, name: str, config: Any) -> None:
        for field in ("resid_pdrop", "embd_pdrop"):
            if getattr(config, field):
                raise RequestError(
                    f"model {name!r}: {field} {getattr(config, field)!r:.60}: dropout between "
                    "layers, which no part of this package expresses (0 is served)"
                )

    def notes(self, config: "PreTrainedConfig") -> list[str]:
        return [ADAPTERS]


def _parts(layer: Any) -> LayerParts:
    attention, config = layer.self_attn, layer.self_attn.config
    size = attention.head_dim
    share_out(attention, config.num_attention_heads * size, config.num_key_value_heads * size)
    return llama_like(layer, rotate_first)


FAMILIES.add(
    "phi4_multimodal",
    Phi4Multimodal("phi4_multimodal", "phi4_multimodal", "Phi4Multimodal", _parts),
)

LONG = [
    factor
    for row in (
        (1.0, 1.118320672, 1.250641126, 1.398617824, 1.564103225, 1.74916897),
        (1.956131817, 2.187582649, 2.446418898, 2.735880826, 3.059592084, 3.421605075),
        (3.826451687, 4.279200023, 4.785517845, 5.351743533, 5.984965424, 6.693110555),
        (7.485043894, 8.370679318, 9.36110372, 10.4687158, 11.70738129, 13.09260651),
        (14.64173252, 16.37415215, 18.31155283, 20.47818807, 22.90118105, 25.61086418),
        (28.64115884, 32.03, 32.1, 32.13, 32.23, 32.6),
        (32.61, 32.64, 32.66, 32.7, 32.71, 32.93),
        (32.97, 33.28, 33.49, 33.5, 44.16, 47.77),
    )
    for factor in row
]
"""rope_scaling.long_factor of that config.json: one for each pair of the 96 rotated values."""

MODELS.add(
    "phi-4-multimodal",
    Model(
        "phi4_multimodal",
        {
            "vocab_size": 200064,
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 32,
            "num_attention_heads": 24,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "original_max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "sliding_window": 262144,
            "partial_rotary_factor": 0.75,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.75,
                "short_factor": [1.0] * 48,
                "long_factor": LONG,
            },
            "tie_word_embeddings": True,
        },
        "config.json of microsoft/Phi-4-multimodal-instruct, as TensorRT-LLM's "
        "test_modeling_phi4mm.py quotes it and transformers' conversion script reads it",
        tower="phi4_multimodal",
        around={
            "model_type": "phi4_multimodal",
            "vision_config": {
                "model_type": "phi4_multimodal_vision",
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "image_size": 448,
                "patch_size": 14,
                "crop_size": 448,
                "feature_layer": -2,
            },
            "audio_config": {
                "model_type": "phi4_multimodal_audio",
                "hidden_size": 1024,
                "intermediate_size": 1536,
                "num_blocks": 24,
                "num_attention_heads": 16,
                "bias_max_distance": 500,
            },
        },
    ),
)
