"""PaddleOCR-VL: tokens of 28 pixels, of images alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.files import ImageFiles
from workbench.visual.qwen_vl import QwenVL
from workbench.vocabulary.errors import RequestError


@dataclass(frozen=True)
class PaddleOcrVL(QwenVL):
    """A token is 2 × 2 patches of 14 pixels. Its model reads no video: a frame is an image."""

    source: ClassVar[str] = (
        "https://huggingface.co/merve/PaddleOCR-VL-hf processor_config.json (size), which is that"
        " of PaddlePaddle/PaddleOCR-VL for transformers"
    )
    models: ClassVar[tuple[str, ...]] = ("paddleocr-vl",)
    model_type: ClassVar[str] = "paddleocr_vl"
    joins_frames: ClassVar[bool] = False
    unsaid: ClassVar[Mapping[str, int]] = {"min": 384 * 384, "max": 1536 * 1536}
    unsaid_video: ClassVar[Mapping[str, int]] = unsaid

    max_frames: int | None = None
    min_frames: int = 1
    temporal_patch_size: int = 1
    min_pixels: int = 147_384
    max_pixels: int = 2_822_400

    def read(self, files: ImageFiles) -> None:
        super().read(files)
        together, file = files.taken.get("temporal_patch_size", (1, ""))
        if together != 1:
            raise RequestError(
                f"model {files.model!r}: {file}: temporal_patch_size {together}: the tower takes "
                "patches of one image, 1"
            )

    def settings(self) -> dict[str, Any]:
        """Every setting by name, of images alone."""
        every = super().settings()
        return {name: value for name, value in every.items() if not name.startswith("video_")}

    def changes(self, limit: str, value: int) -> dict[str, Any] | None:
        if limit in ("min_pixels", "max_pixels"):
            return {limit: value}
        return super().changes(limit, value)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        # An edge shorter than a token is first drawn out to one, with the other beside it.
        if height < self.factor:
            width, height = round(width * self.factor / height), self.factor
        if width < self.factor:
            width, height = self.factor, round(height * self.factor / width)
        return super().resized(width, height)

    def resized_frame(self, width: int, height: int, num_frames: int) -> tuple[int, int]:
        """That of an image."""
        return self.resized(width, height)

    def sampled(self, total_frames: int, native_fps: float, fps: float) -> int:
        return FrontEnd.sampled(self, total_frames, native_fps, fps)


VISIONS.add("paddleocr-vl", PaddleOcrVL())
