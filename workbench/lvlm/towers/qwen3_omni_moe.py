"""Qwen3-Omni's tower: Qwen3-VL's own, a video in one grid whose positions advance with seconds.

The audio tower beside it is left out, which a flag says.
"""

from typing import ClassVar

from workbench.lvlm.towers import TOWERS, Serves
from workbench.lvlm.towers.qwen2_5_omni import Seconds
from workbench.lvlm.towers.qwen3_vl import Qwen3VL
from workbench.lvlm.towers.qwen_vl import WholeVideo


class Qwen3Omni(Seconds, WholeVideo, Qwen3VL):
    """The decoder has experts, the tower has none."""

    serves: ClassVar[Serves] = {"qwen3_omni_moe_thinker": ("qwen3_omni_moe_vision_encoder",)}
    unlisted = (
        "transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe",
        "Qwen3OmniMoeVisionEncoder",
    )
    front_end = "qwen3-omni"
    config_class = "Qwen3OmniMoeVisionEncoderConfig"
    model_class = "Qwen3OmniMoeVisionEncoder"
    audio_class = "Qwen3OmniMoeAudioEncoder"


TOWERS.add("qwen3_omni_moe", Qwen3Omni)
