"""Gemma 2: four norms, soft-capped scores, every second layer under a sliding window."""

from typing import TYPE_CHECKING, Any

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.optimizers.settings import GEMMA
from workbench.lvlm.parts.forms import gemma_like

if TYPE_CHECKING:
    from torch import nn


def prefix_note(config: Any) -> str:
    """The flag of both PaliGemmas, of the text model's configuration."""
    local = getattr(config, "sliding_window", None) is not None
    beyond = ", in local layers beyond the window too" if local else ""
    return (
        "attention: causal; in the released model all tokens of the prefix (images and prompt) "
        f"see each other{beyond}, which no mask here has: FLOPs with every pair are the same, "
        "causal ones and what a kernel skips are not"
    )


class Prefixed(Family):
    """PaliGemma makes its attention bidirectional, which is flagged: every mask is causal."""

    def layer(self, config: Any, index: int) -> "nn.Module":
        block: Any = super().layer(config, index)
        # Kernels without an explicit mask go by this word, which PaliGemma's configuration unsets.
        block.self_attn.is_causal = True
        layer: nn.Module = block
        return layer

    def notes(self, config: Any) -> list[str]:
        if not getattr(config, "use_bidirectional_attention", None):
            return []
        return [prefix_note(config)]


FAMILIES.add(
    "gemma2",
    Prefixed("gemma2", "gemma2", "Gemma2", gemma_like, scaled_embeddings=True, training=GEMMA),
)

MODELS.add(
    "gemma-2-9b",
    Model(
        "gemma2",
        {
            "vocab_size": 256000,
            "hidden_size": 3584,
            "intermediate_size": 14336,
            "num_hidden_layers": 42,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh",
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6,
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "tie_word_embeddings": True,
        },
        "config.json of google/gemma-2-9b",
    ),
)
