"""ERNIE 4.5 VL: tokens of 28 pixels, and pairs of frames in one step."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

from workbench.visual import VISIONS
from workbench.visual.files import ImageFiles
from workbench.visual.qwen_vl import QwenVL
from workbench.vocabulary.errors import RequestError


@dataclass(frozen=True)
class Ernie45VL(QwenVL):
    """A token is 2 × 2 patches of 14 pixels, and 2 frames of a video. Pixels are of a frame."""

    source: ClassVar[str] = (
        "the defaults of Ernie4_5_VLMoeImageProcessor and Ernie4_5_VLMoeVideoProcessor in"
        " transformers, made for https://huggingface.co/baidu/ERNIE-4.5-VL-28B-A3B-PT"
    )
    models: ClassVar[tuple[str, ...]] = ("ernie-4.5-vl",)
    model_type: ClassVar[str] = "ernie4_5_vl_moe"
    joins_frames: ClassVar[bool] = False
    unsaid: ClassVar[Mapping[str, int]] = {"min": 56 * 56, "max": 28 * 28 * 6177}
    unsaid_video: ClassVar[Mapping[str, int]] = {"min": 299 * 28 * 28, "max": 1196 * 28 * 28}

    max_frames: int | None = 180
    min_frames: int = 16
    max_pixels: int = 4_842_768
    video_min_pixels: int = 234_416
    video_max_pixels: int = 937_664

    def read(self, files: ImageFiles) -> None:
        super().read(files)
        for field in ("temporal_patch_size", "temporal_merge_size"):
            stated = files.tower.get(field) if field.endswith("merge_size") else None
            together, file = files.taken.get(field, (stated or 2, "config.json"))
            if together != 2:
                raise RequestError(
                    f"model {files.model!r}: {file}: {field} {together}: its tokens are of pairs "
                    "of frames, 2"
                )

    def changes(self, limit: str, value: int) -> dict[str, Any] | None:
        if limit in ("min_pixels", "max_pixels"):
            return {limit: value, f"video_{limit}": value}
        return super().changes(limit, value)

    def resized_frame(self, width: int, height: int, num_frames: int) -> tuple[int, int]:
        """The same for each of a video's frames, however many."""
        return self.fitted(width, height, self.video_min_pixels, self.video_max_pixels)

    def sampled(self, total_frames: int, native_fps: float, fps: float) -> int:
        most = min(self.max_frames or total_frames, total_frames)
        frames = min(max(total_frames / native_fps * fps, self.min_frames), most)
        # torch.arange in its processor steps so far.
        return ceil(total_frames / (total_frames / frames))

    def notes(self, width: int, height: int, num_frames: int) -> list[str]:
        notes = super().notes(width, height, num_frames)
        if num_frames:
            notes.append(
                "its processor draws the time onto each frame, which costs no token and is not "
                "drawn here"
            )
        return notes


VISIONS.add("ernie-4.5-vl", Ernie45VL())
