"""Qwen3.5's tower: Qwen3-VL's, of which no features but the last block's leave.

Patches of 16 pixels with learned positions resampled to the image, whole frames, 2 × 2 patches
merged to a token; pairs of frames of a video are images, between which time stamps stand as text.
"""

from typing import ClassVar

from workbench.lvlm.towers import TOWERS, Serves
from workbench.lvlm.towers.qwen3_vl import Qwen3VL


class Qwen35(Qwen3VL):
    """No deepstack."""

    serves: ClassVar[Serves] = {"qwen3_5": ("qwen3_5_vision", "qwen3_5")}
    front_end = "qwen3.5"
    kind = "qwen3_5_vision"
    config_class = "Qwen3_5VisionConfig"
    model_class = "Qwen3_5VisionModel"

    def deepstack(self) -> tuple[int, ...]:
        return ()


TOWERS.add("qwen3_5", Qwen35)
