"""Qwen2.5-Omni's tower: Qwen2.5-VL's own, queries, keys and values in matrices of their own.

Positions of a video advance with its seconds, and what follows starts beyond its last one. The
audio tower beside it is left out, which a flag says.
"""

from typing import TYPE_CHECKING, Any, ClassVar

from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.audio import audio_flag
from workbench.lvlm.towers.qwen2_5_vl import Qwen25VL
from workbench.lvlm.towers.qwen_vl import QwenTower

if TYPE_CHECKING:
    from workbench.lvlm.models import Resolved


class Seconds(QwenTower):
    """What the towers of the Omni models share: time in positions, and an audio tower beside."""

    audio_class: str

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        whole: Any = model.whole
        self.audio, self.pace = whole.audio_config, whole.position_id_per_seconds

    @property
    def flags(self) -> list[str]:
        kind = self.family.from_transformers(self.audio_class)
        return [*super().flags, audio_flag(self.model.name, (kind, self.audio))]

    def steps_apart(self, grid: Grid) -> float:
        return 1.0 if grid.seconds is None else grid.seconds * self.pace

    def beyond(self, grid: Grid) -> int:
        last = int((grid.steps - 1) * self.steps_apart(grid))
        return max(super().beyond(grid), last + 1)


class Qwen25Omni(Seconds, Qwen25VL):
    """The thinker's images and video."""

    serves: ClassVar[Serves] = {"qwen2_5_omni_thinker": ("qwen2_5_omni_vision_encoder",)}
    unlisted = (
        "transformers.models.qwen2_5_omni.modeling_qwen2_5_omni",
        "Qwen2_5OmniVisionEncoder",
    )
    front_end = "qwen2.5-omni"
    config_class = "Qwen2_5OmniVisionEncoderConfig"
    model_class = "Qwen2_5OmniVisionEncoder"
    audio_class = "Qwen2_5OmniAudioEncoder"


TOWERS.add("qwen2_5_omni", Qwen25Omni)
