"""Qwen2.5-VL: tokens of 28 pixels, and pairs of frames in one step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS
from workbench.visual.files import ImageFiles
from workbench.visual.qwen_vl import QwenVL

UNSAID_VIDEO = {"min": 128 * 28 * 28, "max": 28 * 28 * 768}
"""Pixels of Qwen2VLVideoProcessor in transformers, where a file gives it none."""
CONTEXT, SHARE = 128_000, 0.9
"""The reference pipeline's context in tokens, and the share of it that one video may take."""


@dataclass(frozen=True)
class Qwen25VL(QwenVL):
    """A token is 2 × 2 patches of 14 pixels, and 2 frames of a video. Pixels are of a frame.

    ``max_video_pixels`` is a budget that all frames of a video share, as transformers'
    ``cap_pixels_per_frame`` and qwen-vl-utils have it; without it each frame has ``max_pixels``.
    """

    source: ClassVar[str] = (
        "https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct preprocessor_config.json (min_pixels,"
        " max_pixels), read by transformers for images and for video; 4 to 768 frames: its video"
        " processor"
    )
    models: ClassVar[tuple[str, ...]] = ("qwen2.5-vl",)
    model_type: ClassVar[str] = "qwen2_5_vl"
    unsaid_video: ClassVar[Mapping[str, int]] = UNSAID_VIDEO

    max_video_pixels: int | None = None

    def read(self, files: ImageFiles) -> None:
        super().read(files)
        if files.videos is not None and files.videos[1].get("cap_pixels_per_frame") is True:
            file, fields = files.videos
            context = fields.get("max_video_tokens")
            context = CONTEXT if context is None else context
            if files.take("max_video_pixels", context, file):
                merge, patch = (
                    files.taken[name][0] if name in files.taken else getattr(self, name)
                    for name in ("merge_size", "patch_size")
                )
                pixels = int(context * (merge * patch) ** 2 * SHARE)
                files.taken["max_video_pixels"] = pixels, file

    def changes(self, limit: str, value: int) -> dict[str, Any] | None:
        if limit in ("min_pixels", "max_pixels"):
            return {limit: value, f"video_{limit}": value}
        if limit == "max_video_tokens":
            return {"max_video_pixels": value * self.factor**2}
        return super().changes(limit, value)

    def resized_frame(self, width: int, height: int, num_frames: int) -> tuple[int, int]:
        """The same for each of ``num_frames`` frames of a video, which may share a budget."""
        return self.fitted(width, height, self.video_min_pixels, self.most_of_frame(num_frames))

    def most_of_frame(self, num_frames: int) -> int:
        """Pixels of each of so many frames of a video at most."""
        if self.max_video_pixels is None:
            return self.video_max_pixels
        share = self.max_video_pixels * self.temporal_patch_size // num_frames
        return max(min(self.video_max_pixels, share), int(self.video_min_pixels * 1.05))

    def notes(self, width: int, height: int, num_frames: int) -> list[str]:
        notes = super().notes(width, height, num_frames)
        budget = int(CONTEXT * SHARE)
        if self.max_video_pixels is None and num_frames:
            capped = type(self)(
                **{**self.settings(), "max_video_pixels": int(budget * self.factor**2)}
            )
            less = capped.tokens_of_video(width, height, num_frames)
            if less < self.tokens_of_video(width, height, num_frames):
                notes.append(
                    f"no budget for the whole video, as transformers has it; qwen-vl-utils' of "
                    f"{budget:,} tokens would make {less:,}: --max-video-tokens {budget}"
                )
        return notes


VISIONS.add("qwen2.5-vl", Qwen25VL())
