"""Qwen2-VL: images and video as Qwen2.5-VL's, by the same processors in transformers."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.visual import VISIONS
from workbench.visual.qwen2_5_vl import Qwen25VL


@dataclass(frozen=True)
class Qwen2VL(Qwen25VL):
    """A token is 2 × 2 patches of 14 pixels, and 2 frames of a video."""

    source: ClassVar[str] = (
        "https://huggingface.co/Qwen/Qwen2-VL-7B-Instruct preprocessor_config.json (min_pixels,"
        " max_pixels), read by transformers for images and for video; 4 to 768 frames: its video"
        " processor"
    )
    models: ClassVar[tuple[str, ...]] = ("qwen2-vl",)
    model_type: ClassVar[str] = "qwen2_vl"


VISIONS.add("qwen2-vl", Qwen2VL())
