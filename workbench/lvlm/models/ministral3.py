"""Ministral 3: Mistral's layer, whose queries are scaled by their position, under Pixtral's tower.

Queries beyond the original context are multiplied with 1 + β·log(1 + ⌊position / context⌋).
"""

from typing import TYPE_CHECKING

import torch

from workbench.lvlm.models import FAMILIES, MODELS, Family, Model
from workbench.lvlm.models.pixtral import merged, tower
from workbench.lvlm.parts.forms import llama_like

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig

FIELDS = ("llama_4_scaling_beta", "original_max_position_embeddings")


class Ministral3(Family):
    """The scale is of the position in the whole sequence."""

    def query_factor(self, config: "PreTrainedConfig", positions: "Tensor") -> "Tensor":
        beta, context = (config.rope_parameters.get(name) for name in FIELDS)
        if not all(isinstance(x, (int, float)) and x > 0 for x in (beta, context)):
            raise ValueError(
                f"rope_parameters: {FIELDS[0]} {beta!r:.60}, {FIELDS[1]} {context!r:.60}: its "
                "queries are scaled by these, two numbers above 0"
            )
        return 1 + beta * torch.log(1 + torch.floor(positions / context))


FAMILIES.add(
    "ministral3",
    Ministral3("ministral3", "ministral3", "Ministral3", llama_like, scaled_queries=True),
)


def _model(size: str, hidden: int, mlp: int, layers: int, theta: float, tied: bool) -> Model:
    return Model(
        "ministral3",
        {
            "vocab_size": 131072,
            "hidden_size": hidden,
            "intermediate_size": mlp,
            "num_hidden_layers": layers,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 262144,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": theta,
                "factor": 16.0,
                "original_max_position_embeddings": 16384,
                "max_position_embeddings": 262144,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "llama_4_scaling_beta": 0.1,
            },
            "sliding_window": None,
            "tie_word_embeddings": tied,
        },
        f"config.json of mistralai/Ministral-3-{size}-Base-2512",
        around=merged(tower(14, 1540), tied),
    )


MODELS.add("ministral-3-3b", _model("3B", 3072, 9216, 26, 1e6, True))
MODELS.add("ministral-3-8b", _model("8B", 4096, 14336, 34, 1e6, False))
MODELS.add("ministral-3-14b", _model("14B", 5120, 16384, 40, 1e9, False))
