"""Qwen3-VL: tokens of 32 pixels, and a budget of pixels for a whole video."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS
from workbench.visual.files import ImageFiles
from workbench.visual.qwen_vl import QwenVL
from workbench.vocabulary.errors import RequestError

UNSAID_VIDEO = {"min": 128 * 32 * 32, "max": 32 * 32 * 768}
"""Pixels of Qwen3VLVideoProcessor in transformers, where a file gives it none."""
FRAME_TOKENS = 768
"""Of a frame at most where ``cap_pixels_per_frame`` asks for a cap and does not say which."""


@dataclass(frozen=True)
class Qwen3VL(QwenVL):
    """A token is 2 × 2 patches of 16 pixels, and 2 frames of a video.

    The pixels of video are those of all its frames together. ``max_frame_tokens`` is the cap of
    one frame under transformers' ``cap_pixels_per_frame``; without it a short video spends the
    whole budget on few frames.
    """

    source: ClassVar[str] = (
        "https://huggingface.co/Qwen/Qwen3-VL-8B-Instruct preprocessor_config.json and"
        " video_preprocessor_config.json (size); 4 to 768 frames: its video processor in"
        " transformers"
    )
    models: ClassVar[tuple[str, ...]] = ("qwen3-vl",)
    model_type: ClassVar[str] = "qwen3_vl"
    unsaid_video: ClassVar[Mapping[str, int]] = UNSAID_VIDEO

    patch_size: int = 16
    min_pixels: int = 65_536
    max_pixels: int = 16_777_216
    video_min_pixels: int = 4_096
    video_max_pixels: int = 25_165_824
    max_frame_tokens: int | None = None

    def serves(self, config: Mapping[str, Any]) -> bool:
        kinds = (self.model_type, f"{self.model_type}_moe")
        return config.get("model_type") in kinds and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        super().read(files)
        if files.videos is not None and files.videos[1].get("cap_pixels_per_frame") is True:
            file, fields = files.videos
            most = fields.get("max_video_tokens")
            files.take("max_frame_tokens", FRAME_TOKENS if most is None else most, file)

    def changes(self, limit: str, value: int) -> dict[str, Any] | None:
        if limit in ("min_pixels", "max_pixels"):
            return {limit: value}
        if limit == "max_video_tokens":
            return {"video_max_pixels": value * self.factor**2 * self.temporal_patch_size}
        return super().changes(limit, value)

    def resized_frame(self, width: int, height: int, num_frames: int) -> tuple[int, int]:
        """The same for each of ``num_frames`` frames of a video, which share its budget."""
        least, most = self.video_min_pixels, self.video_max_pixels
        if self.max_frame_tokens is not None:
            share = min(self.max_frame_tokens * self.factor**2, most // num_frames)
            most = max(share, int(least * 1.05)) * num_frames
        return self.fitted_frames(width, height, num_frames, least, most)

    def fitted_frames(
        self, width: int, height: int, num_frames: int, least: int, most: int
    ) -> tuple[int, int]:
        """Whole tokens of a frame near that size, of ``least`` to ``most`` pixels in all frames.

        Raises RequestError where there are fewer frames than a token spans.
        """
        together, factor = self.temporal_patch_size, self.factor
        if num_frames < together:
            raise RequestError(
                f"frames {num_frames}: {self.name} takes a video of at least {together} frames"
            )
        if min(width, height) < factor:
            scale = max(factor / height, factor / width)
            width, height = int(width * scale), int(height * scale)
        times = num_frames, round(num_frames / together) * together
        return self.fitted(width, height, least, most, times)

    def tokens_of_step(self, width: int, height: int, num_frames: int = 2) -> int:
        return super().tokens_of_step(width, height, num_frames)

    def sampled(self, total_frames: int, native_fps: float, fps: float) -> int:
        most = min(self.max_frames or total_frames, total_frames)
        return max(1, min(max(int(total_frames / native_fps * fps), self.min_frames), most))

    def notes(self, width: int, height: int, num_frames: int) -> list[str]:
        notes = super().notes(width, height, num_frames)
        if num_frames:
            steps = self.steps(num_frames)
            notes.append(
                f"its processor writes a time stamp before each of the {steps:,} steps: tokens of "
                "text, which are none of |V|"
            )
        return notes


VISIONS.add("qwen3-vl", Qwen3VL())
