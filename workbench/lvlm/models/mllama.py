"""Llama 3.2 Vision: Llama 3 on text alone, and layers between that read the images.

Every fifth layer has no self-attention: text rows attend to the tower's embeddings, with norms
over a head and without RoPE, and both its attention and its MLP are gated by a tanh. The text sees
the images that stand right before it. S-Attn on it is the released model as it is; other systems
have no visual rows to work on, and ``gated_xattn`` is already there.
"""

from typing import TYPE_CHECKING, Any

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.forms import llama_like, rotate_half
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig

PLACEHOLDERS = 8
"""Rows of the embedding beside the vocabulary's: the image token among them."""


class Mllama(Family):
    """Two kinds of layers, chosen by index."""

    def check(self, name: str, config: Any) -> None:
        cross_layers, count = config.cross_attention_layers, config.num_hidden_layers
        right = isinstance(cross_layers, list) and all(isinstance(i, int) for i in cross_layers)
        if (
            not right
            or len(set(cross_layers)) < len(cross_layers)
            or any(not 0 <= i < count for i in cross_layers)
        ):
            raise RequestError(
                f"model {name!r}: cross_attention_layers {cross_layers!r:.60}: different "
                f"layers, 0 to {count - 1}"
            )

    def cross_layers(self, config: Any) -> frozenset[int]:
        return frozenset(config.cross_attention_layers)

    def embedded(self, config: Any) -> int:
        return int(config.vocab_size) + PLACEHOLDERS

    def layer(self, config: "PreTrainedConfig", index: int) -> "nn.Module":
        kind = "Cross" if index in self.cross_layers(config) else "Self"
        return self.from_transformers(f"Mllama{kind}AttentionDecoderLayer")(config, index)

    def norm(self, config: "PreTrainedConfig") -> "nn.Module":
        return self.from_transformers("MllamaTextRMSNorm")(
            config.hidden_size, eps=config.rms_norm_eps
        )


def _parts(layer: Any) -> LayerParts:
    if hasattr(layer, "self_attn"):
        return llama_like(layer)
    attention = layer.cross_attn
    return LayerParts(
        layer=layer,
        attention=attention,
        input_norm=layer.input_layernorm,
        post_attention_norm=None,
        mlp_norm=layer.post_attention_layernorm,
        mlp=layer.mlp,
        post_mlp_norm=None,
        q_norm=attention.q_norm,
        k_norm=attention.k_norm,
        hidden_size=attention.hidden_size,
        num_heads=attention.num_heads,
        num_kv_heads=attention.num_key_value_heads,
        head_dim=attention.head_dim,
        scale=attention.scaling,
        softcap=None,
        window=None,
        rope=rotate_half,
    )


FAMILIES.add(
    "mllama",
    Mllama("mllama_text_model", "mllama", "Mllama", _parts, config_name="MllamaTextConfig"),
)


def _model(size: str, **fields: Any) -> Model:
    shared = {
        "vocab_size": 128256,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "tie_word_embeddings": False,
    }
    vision = {
        "model_type": "mllama_vision_model",
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_global_layers": 8,
        "attention_heads": 16,
        "image_size": 560,
        "patch_size": 14,
        "max_num_tiles": 4,
        "vision_output_dim": 7680,
        "intermediate_layers_indices": [3, 7, 15, 23, 30],
    }
    return Model(
        "mllama",
        {**shared, **fields},
        f"config.json of meta-llama/Llama-3.2-{size}-Vision-Instruct",
        tower="mllama",
        around={"model_type": "mllama", "vision_config": vision, "tie_word_embeddings": False},
    )


MODELS.add(
    "llama-3.2-11b-vision",
    _model(
        "11B",
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=40,
        num_attention_heads=32,
        cross_attention_layers=[*range(3, 40, 5)],
    ),
)
MODELS.add(
    "llama-3.2-90b-vision",
    _model(
        "90B",
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=100,
        num_attention_heads=64,
        cross_attention_layers=[*range(3, 100, 5)],
    ),
)
