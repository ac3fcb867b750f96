"""ShieldGemma 2's tower: Gemma 3's own, of whole images.

Its class answers with the softmax of two of the last row's logits, those of yes and no. Gemma 3's
LM head makes them, over all rows; the choice of the two and their softmax are left out.
"""

from typing import ClassVar

from workbench.lvlm.towers import TOWERS, Serves
from workbench.lvlm.towers.gemma3 import Gemma3


class ShieldGemma2(Gemma3):
    """A token is the mean of a square of patches."""

    serves: ClassVar[Serves] = {"shieldgemma2": ("siglip_vision_model",)}
    front_end = "shieldgemma-2"

    @property
    def flags(self) -> list[str]:
        return [
            "head: Gemma 3's LM head; that ShieldGemma 2 answers with two of the last row's "
            "logits and their softmax is left out"
        ]


TOWERS.add("shieldgemma2", ShieldGemma2)
