"""Gemma 3: four norms, QK-norm, five local layers (window, their own RoPE base) to one global."""

from typing import TYPE_CHECKING, Any

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.optimizers.settings import GEMMA
from workbench.lvlm.parts.forms import gemma_like

if TYPE_CHECKING:
    from torch import Tensor, nn


class Gemma3(Family):
    """Local and global layers rotate with different frequencies."""

    def cos_sin(
        self, rotary: "nn.Module", like: "Tensor", positions: "Tensor", layer_type: str
    ) -> "tuple[Tensor, Tensor]":
        return rotary(like, positions.unsqueeze(0), layer_type)

    def notes(self, config: Any) -> list[str]:
        return [
            "attention: causal; in the released model tokens of an image also see those after "
            "them in it, which no mask here has"
        ]


FAMILIES.add(
    "gemma3",
    Gemma3(
        "gemma3_text",
        "gemma3",
        "Gemma3",
        gemma_like,
        config_name="Gemma3TextConfig",
        scaled_embeddings=True,
        training=GEMMA,
    ),
)


def _model(source: str, scalar: int, kind: str = "gemma3", **fields: Any) -> Model:
    """A published size; ``scalar`` is what the root of queries' scale is taken of."""
    return Model(
        "gemma3",
        {
            "vocab_size": 262208,
            "hidden_activation": "gelu_pytorch_tanh",
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-6,
            "query_pre_attn_scalar": scalar,
            "sliding_window": 1024,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
            "tie_word_embeddings": True,
            **fields,
        },
        source,
        tower=kind,
        around={
            "model_type": kind,
            "mm_tokens_per_image": 256,
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "image_size": 896,
                "patch_size": 14,
                "vision_use_head": False,
            },
            "tie_word_embeddings": True,
        },
    )


_FOUR: dict[str, Any] = {
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 34,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
}
MODELS.add("gemma-3-4b", _model("config.json of google/gemma-3-4b-pt", 256, **_FOUR))
MODELS.add(
    "shieldgemma-2-4b",
    _model(
        "config.json of google/gemma-3-4b-pt, from memory that of google/shieldgemma-2-4b-it too",
        256,
        kind="shieldgemma2",
        **_FOUR,
    ),
)
MODELS.add(
    "gemma-3-12b",
    _model(
        "config.json of google/gemma-3-12b-pt",
        256,
        hidden_size=3840,
        intermediate_size=15360,
        num_hidden_layers=48,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=256,
    ),
)
MODELS.add(
    "gemma-3-27b",
    _model(
        "config.json of google/gemma-3-27b-pt",
        168,
        hidden_size=5376,
        intermediate_size=21504,
        num_hidden_layers=62,
        num_attention_heads=32,
        num_key_value_heads=16,
        head_dim=128,
    ),
)
