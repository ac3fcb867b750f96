"""Gemma: two norms, gated GELU, scaled embeddings; one head of keys and values in the 2B."""

from workbench.lvlm.models import FAMILIES
from workbench.lvlm.models.gemma2 import Prefixed
from workbench.lvlm.optimizers.settings import GEMMA
from workbench.lvlm.parts.forms import llama_like

FAMILIES.add(
    "gemma",
    Prefixed("gemma", "gemma", "Gemma", llama_like, scaled_embeddings=True, training=GEMMA),
)
