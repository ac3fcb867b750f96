"""GLM-4.6V: images as GLM-4.1V's; of a video as many frames as its length asks for."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.visual import VISIONS
from workbench.visual.glm4v import Glm4v

RATES = ((30, 3.0), (300, 1.0), (2400, 0.5))
"""Steps a second of videos of up to so many seconds; longer ones are sampled as the last."""
MOST = 640
"""Frames of a video at most."""


@dataclass(frozen=True)
class Glm46v(Glm4v):
    """Frames of a video follow from its length: the rate that is asked for has no say."""

    source: ClassVar[str] = (
        "transformers' image and video processors of GLM-4.6V (size, sample_frames)"
    )
    models: ClassVar[tuple[str, ...]] = ("glm-4.6v",)
    model_type: ClassVar[str] = "glm46v"

    def sampled(self, total_frames: int, native_fps: float, fps: float) -> int:
        """Two frames for each step; none twice, an even number."""
        seconds = total_frames / native_fps
        length = min(seconds, RATES[-1][0])
        rate = next(rate for longest, rate in RATES if length <= longest)
        together = self.temporal_patch_size
        wanted = min(int(length * rate * together), MOST)
        unlike = min(wanted, total_frames)
        if unlike == wanted:
            # Those that its steps meet; where they are too few, as many between first and last.
            due, met, last = 0.0, 0, 0
            for place in range(total_frames):
                if place / native_fps >= due:
                    due += 1 / (together * rate)
                    met, last = met + 1, place
                    if due >= int(seconds):
                        break
            if met < wanted:
                unlike = min(wanted, last + 1)
        return min(unlike + unlike % 2, self.max_frames or unlike + 1)


VISIONS.add("glm-4.6v", Glm46v())
