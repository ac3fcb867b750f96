"""Molmo 2: Qwen3's layer, and rows of an embedding for tokens of images that no head predicts.

The form that norms queries and keys over all heads together, or what a sublayer gives, is refused,
as are layers without the scaling of RoPE that others have. Masks are causal, which is flagged: in
the released model all tokens of images and frames see each other.
"""

from typing import TYPE_CHECKING

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.parts.forms import llama_like
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Molmo2(Family):
    """An embedding of more rows than the head has."""

    def embedded(self, config: "PreTrainedConfig") -> int:
        return int(config.vocab_size + config.additional_vocab_size)

    def check(self, name: str, config: "PreTrainedConfig") -> None:
        for field, only, what in (
            ("qk_norm_type", "qwen3", "queries and keys normed over all heads together"),
            ("norm_after", False, "norms behind attention and MLP alone"),
            ("tie_word_embeddings", False, "a head of as many rows as the embedding"),
        ):
            value = getattr(config, field)
            if value != only:
                raise RequestError(
                    f"model {name!r}: {field} {value!r:.60}: {what}, which no part of this "
                    f"package expresses; {str(only).lower()} is served"
                )
        scaled = sorted(set(config.rope_scaling_layers)) == [*range(config.num_hidden_layers)]
        if config.rope_parameters["rope_type"] != "default" and not scaled:
            raise RequestError(
                f"model {name!r}: rope_scaling_layers {config.rope_scaling_layers!r:.60}: all "
                "layers, for one table of positions is made"
            )

    def notes(self, config: "PreTrainedConfig") -> list[str]:
        return [
            "attention: causal; in the released model all tokens of images and frames see each "
            "other, also those that come later"
        ]


FAMILIES.add(
    "molmo2",
    Molmo2(
        "molmo2_text",
        "molmo2",
        "Molmo2",
        llama_like,
        config_name="Molmo2TextConfig",
        lm_name="Molmo2ForConditionalGeneration",
    ),
)


def _add(size: str, width: int, mlp: int) -> None:
    """One on Qwen3 of that size, whose MLP is as wide as the adapter's."""
    MODELS.add(
        f"molmo2-{size}",
        Model(
            "molmo2",
            {
                "vocab_size": 151936,
                "additional_vocab_size": 128,
                "hidden_size": width,
                "intermediate_size": mlp,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "qk_norm_type": "qwen3",
                "max_position_embeddings": 36864,
                "rms_norm_eps": 1e-6,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
                "tie_word_embeddings": False,
            },
            f"config.json of Qwen/Qwen3-{size.upper()} and the defaults of Molmo2Config in "
            "transformers, put together as the conversion script of allenai/molmo2 does",
            tower="molmo2",
            around={
                "model_type": "molmo2",
                "image_patch_id": 151938,
                "vision_config": {
                    "model_type": "molmo2_vision",
                    "hidden_size": 1152,
                    "intermediate_size": 4304,
                    "num_hidden_layers": 25,
                    "num_attention_heads": 16,
                    "num_key_value_heads": 16,
                    "head_dim": 72,
                    "image_size": [378, 378],
                    "patch_size": 14,
                },
                "adapter_config": {
                    "model_type": "molmo2_adapter",
                    "hidden_size": 1152,
                    "intermediate_size": mlp,
                    "text_hidden_size": width,
                    "num_attention_heads": 16,
                    "num_key_value_heads": 16,
                    "head_dim": 72,
                    "vision_feature_layer": [24, 18],
                },
                "tie_word_embeddings": False,
            },
        ),
    )


_add("4b", 2560, 9728)
_add("8b", 4096, 12288)
