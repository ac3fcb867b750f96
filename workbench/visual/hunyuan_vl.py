"""HunyuanOCR: whole tokens of 32 pixels at an image's own size, a newline a row, two around it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from workbench.visual import VISIONS
from workbench.visual.files import ImageFiles
from workbench.visual.qwen_vl import QwenVL
from workbench.vocabulary.errors import RequestError

UNSAID = {"min": 512 * 512, "max": 2048 * 2048}
"""Pixels of HunYuanVLImageProcessor in transformers, where a file gives it none."""


@dataclass(frozen=True)
class HunyuanVL(QwenVL):
    """A token is 2 × 2 patches of 16 pixels. A frame of a video is an image: it has no rule."""

    source: ClassVar[str] = (
        "HunYuanVLImageProcessor and HunYuanVLProcessor in transformers, which name"
        " https://huggingface.co/tencent/HunyuanOCR; a checkpoint's own files come first"
    )
    models: ClassVar[tuple[str, ...]] = ("hunyuan-ocr",)
    model_type: ClassVar[str] = "hunyuan_vl"
    unsaid: ClassVar[Mapping[str, int]] = UNSAID
    unsaid_video: ClassVar[Mapping[str, int]] = UNSAID

    max_frames: int | None = None
    patch_size: int = 16
    temporal_patch_size: int = 1
    min_pixels: int = UNSAID["min"]
    max_pixels: int = UNSAID["max"]
    video_min_pixels: int = UNSAID["min"]
    video_max_pixels: int = UNSAID["max"]

    def read(self, files: ImageFiles) -> None:
        super().read(files)
        together, file = files.taken.get("temporal_patch_size", (1, ""))
        if together != 1:
            raise RequestError(
                f"model {files.model!r}: {file}: temporal_patch_size {together}: 1, for the tower "
                "takes images alone"
            )

    def resized_frame(self, width: int, height: int, num_frames: int) -> tuple[int, int]:
        return self.resized(width, height)

    def tokens_of_image(self, width: int, height: int) -> int:
        columns, rows = (edge // self.factor for edge in self.resized(width, height))
        return rows * (columns + 1) + 2

    def tokens_of_step(self, width: int, height: int, num_frames: int = 1) -> int:
        return self.tokens_of_image(width, height)


VISIONS.add("hunyuan-vl", HunyuanVL())
