"""EXAONE 4.5: images and video as Qwen2-VL's, by the same processors in transformers."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.visual import VISIONS
from workbench.visual.qwen2_5_vl import UNSAID_VIDEO, Qwen25VL
from workbench.visual.qwen_vl import UNSAID


@dataclass(frozen=True)
class Exaone45(Qwen25VL):
    """A token is 2 × 2 patches of 14 pixels, and 2 frames of a video."""

    source: ClassVar[str] = (
        "transformers' processors of exaone4_5 (Qwen2VLImageProcessor, Qwen2VLVideoProcessor) and"
        " their limits; a checkpoint's own files come first"
    )
    models: ClassVar[tuple[str, ...]] = ("exaone-4.5",)
    model_type: ClassVar[str] = "exaone4_5"

    min_pixels: int = UNSAID["min"]
    max_pixels: int = UNSAID["max"]
    video_min_pixels: int = UNSAID_VIDEO["min"]
    video_max_pixels: int = UNSAID_VIDEO["max"]


VISIONS.add("exaone-4.5", Exaone45())
