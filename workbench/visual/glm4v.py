"""GLM-4.1V: tokens of 28 pixels; an image counts as a pair of frames against its limits."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor
from typing import Any, ClassVar

from workbench.visual import VISIONS
from workbench.visual.files import Found
from workbench.visual.qwen3_vl import Qwen3VL
from workbench.visual.qwen_vl import QwenVL


@dataclass(frozen=True)
class Glm4v(Qwen3VL):
    """A token is 2 × 2 patches of 14 pixels, and 2 frames of a video.

    ``min_pixels`` and ``max_pixels`` are of an image shown twice, as its processor counts them:
    twice the image's own. Those of video are of all its frames together.
    """

    source: ClassVar[str] = (
        "https://huggingface.co/zai-org/GLM-4.1V-9B-Thinking preprocessor_config.json and"
        " video_preprocessor_config.json (size); at most 300 s of a video: its video processor"
        " in transformers"
    )
    models: ClassVar[tuple[str, ...]] = ("glm-4.1v",)
    model_type: ClassVar[str] = "glm4v"
    unsaid: ClassVar[Mapping[str, int]] = {"min": 112 * 112, "max": 28 * 28 * 15_000}
    unsaid_video: ClassVar[Mapping[str, int]] = {"min": 112 * 112, "max": 28 * 28 * 2 * 30_000}

    max_frames: int | None = None
    min_frames: int = 1
    patch_size: int = 14
    min_pixels: int = 12_544
    max_pixels: int = 9_633_792
    video_min_pixels: int = 12_544
    video_max_pixels: int = 47_040_000
    max_duration: int = 300

    def serves(self, config: Mapping[str, Any]) -> bool:
        return QwenVL.serves(self, config)  # Of its type alone.

    def read(self, found: Found) -> None:
        QwenVL.read(self, found)  # It has no cap of one frame.
        if found.videos is not None:
            file, fields = found.videos
            found.take("max_duration", fields.get("max_duration"), file)

    @property
    def min_tokens(self) -> int:
        return max(1, self.min_pixels // self.temporal_patch_size // self.factor**2)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        together = self.temporal_patch_size
        return self.fitted_frames(width, height, together, self.min_pixels, self.max_pixels)

    def resized_frame(self, width: int, height: int, num_frames: int) -> tuple[int, int]:
        """The same for each of ``num_frames`` frames of a video, which share its budget."""
        least, most = self.video_min_pixels, self.video_max_pixels
        return self.fitted_frames(width, height, num_frames, least, most)

    def sampled(self, total_frames: int, native_fps: float, fps: float) -> int:
        """Frames ``fps`` a second, of a longer video evenly spread; none twice, an even number."""
        last, seconds = total_frames - 1, total_frames / native_fps
        if seconds <= self.max_duration:
            count = max(floor(seconds * fps), 1)
            places = [ceil(i * native_fps / fps) for i in range(count)]
        else:
            count = min(int(self.max_duration * fps), total_frames)
            if count == total_frames:
                places = [*range(total_frames)]
            else:
                places = [ceil(i * seconds / max(count - 1, 1) * native_fps) for i in range(count)]
        unlike = len({min(last, place) for place in places})
        return min(unlike + unlike % 2, self.max_frames or unlike + 1)


VISIONS.add("glm-4.1v", Glm4v())
