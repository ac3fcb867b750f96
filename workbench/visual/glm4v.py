"""GLM-4.1V: tokens of 28 pixels; an image counts as a pair of frames against its limits."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor
from typing import ClassVar

from workbench.visual import VISIONS
from workbench.visual.files import ImageFiles
from workbench.visual.qwen3_vl import Qwen3VL
from workbench.visual.qwen_vl import QwenVL

OF_LENGTH = "Glm46VVideoProcessor"
"""The video processor of GLM-4.6V, whose model types are those of GLM-4.1V and 4.5V."""
RATES = ((30, 3.0), (300, 1.0), (2400, 0.5))
"""Its steps a second for videos of up to so many seconds; longer ones are sampled as the last."""
MOST = 640
"""Its frames of a video at most."""


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
    models: ClassVar[tuple[str, ...]] = ("glm-4.1v", "glm-4.5v")
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
    by_length: bool = False
    """Whether frames follow from a video's length alone, as with GLM-4.6V's processor."""

    def read(self, files: ImageFiles) -> None:
        QwenVL.read(self, files)  # It has no cap of one frame.
        if files.videos is not None:
            file, fields = files.videos
            files.take("max_duration", fields.get("max_duration"), file)
            if fields.get("video_processor_type") == OF_LENGTH:
                files.taken["by_length"] = True, file

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
        """Frames ``fps`` a second, of a longer video evenly spread; none twice, an even number.

        The rate has no say where they follow from the length.
        """
        if self.by_length:
            return self.sampled_by_length(total_frames, native_fps)
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

    def sampled_by_length(self, total_frames: int, native_fps: float) -> int:
        """Two frames for each step of GLM-4.6V's; none twice, an even number."""
        seconds = total_frames / native_fps
        length = min(seconds, RATES[-1][0])
        rate = next(rate for longest, rate in RATES if length <= longest)
        together = self.temporal_patch_size
        frames = min(int(length * rate * together), MOST)
        unlike = min(frames, total_frames)
        if unlike == frames:
            # Those that its steps meet; where they are too few, as many between first and last.
            due, met, last = 0.0, 0, 0
            for place in range(total_frames):
                if place / native_fps >= due:
                    due += 1 / (together * rate)
                    met, last = met + 1, place
                    if due >= int(seconds):
                        break
            if met < frames:
                unlike = min(frames, last + 1)
        return min(unlike + unlike % 2, self.max_frames or unlike + 1)


VISIONS.add("glm-4.1v", Glm4v())
