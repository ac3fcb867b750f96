"""Qwen3.5: the processors of Qwen3-VL, and so its rule."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.visual import VISIONS
from workbench.visual.qwen3_vl import Qwen3VL


@dataclass(frozen=True)
class Qwen35(Qwen3VL):
    """A token is 2 × 2 patches of 16 pixels, and 2 frames of a video."""

    source: ClassVar[str] = (
        "transformers' processors of qwen3_5 (Qwen2VLImageProcessor, Qwen3VLVideoProcessor),"
        " their limits as Qwen/Qwen3-VL-8B-Instruct has them; a checkpoint's own files come first"
    )
    models: ClassVar[tuple[str, ...]] = ("qwen3.5",)
    model_type: ClassVar[str] = "qwen3_5"


VISIONS.add("qwen3.5", Qwen35())
