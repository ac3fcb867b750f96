"""DeepSeek V3, also Kimi K2's decoder: latent attention and experts; S-Attn alone.

Heads of queries and keys are 192 wide, a third of them rotated, and those of values 128: eager,
math and the packages of FlashAttention are served. The first layers' MLP is one; of the experts of
the others, which a router with a bias chooses in groups, a token meets 8 and a shared one. The
layer that published checkpoints have for predicting two tokens is left out, as transformers does.
"""

from workbench.lvlm.models import FAMILIES
from workbench.lvlm.models.biased import Biased
from workbench.lvlm.models.mistral4 import Latent, latent_parts


class DeepseekV3(Biased, Latent):
    """Its routers have a bias."""


FAMILIES.add(
    "deepseek_v3",
    DeepseekV3(
        "deepseek_v3", "deepseek_v3", "DeepseekV3", latent_parts, config_name="DeepseekV3Config"
    ),
)
