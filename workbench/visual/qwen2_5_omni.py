"""Qwen2.5-Omni and Qwen3-Omni: images as Qwen2.5-VL and Qwen3-VL have them, video as the first.

A video is one grid, without time stamps between its frames; sound in it is no part of this.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from workbench.visual import VISIONS
from workbench.visual.files import ImageFiles
from workbench.visual.qwen2_5_vl import Qwen25VL


@dataclass(frozen=True)
class Qwen25Omni(Qwen25VL):
    """Pixels of a frame of video are its processor's own, whatever a file says."""

    source: ClassVar[str] = (
        "https://huggingface.co/Qwen/Qwen2.5-Omni-7B preprocessor_config.json (min_pixels,"
        " max_pixels); Qwen2_5OmniProcessor in transformers for video"
    )
    models: ClassVar[tuple[str, ...]] = ("qwen2.5-omni",)
    model_type: ClassVar[str] = "qwen2_5_omni_thinker"
    processor: ClassVar[str] = "Qwen2_5OmniProcessor in transformers"
    video: ClassVar[Mapping[str, int]] = {"min": 128 * 28 * 28, "max": 768 * 28 * 28}
    """Pixels of a frame at least and at most."""

    video_min_pixels: int = 128 * 28 * 28
    video_max_pixels: int = 768 * 28 * 28

    def read(self, files: ImageFiles) -> None:
        super().read(files)
        for end, pixels in self.video.items():
            files.taken[f"video_{end}_pixels"] = pixels, self.processor


VISIONS.add("qwen2.5-omni", Qwen25Omni())


@dataclass(frozen=True)
class Qwen3Omni(Qwen25Omni):
    """A token is 2 × 2 patches of 16 pixels."""

    source: ClassVar[str] = (
        "https://huggingface.co/Qwen/Qwen3-Omni-30B-A3B-Instruct preprocessor_config.json;"
        " Qwen3OmniMoeProcessor in transformers for video"
    )
    models: ClassVar[tuple[str, ...]] = ("qwen3-omni",)
    model_type: ClassVar[str] = "qwen3_omni_moe_thinker"
    processor: ClassVar[str] = "Qwen3OmniMoeProcessor in transformers"
    video: ClassVar[Mapping[str, int]] = {"min": 128 * 32 * 32, "max": 768 * 32 * 32}

    patch_size: int = 16
    video_min_pixels: int = 128 * 32 * 32
    video_max_pixels: int = 768 * 32 * 32


VISIONS.add("qwen3-omni", Qwen3Omni())
