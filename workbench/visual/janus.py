"""Janus: any image is padded to one square of SigLIP L/16 at 384 pixels, 576 tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from workbench.visual import VISIONS
from workbench.visual.deepseek_vl import DeepseekVL


@dataclass(frozen=True)
class Janus(DeepseekVL):
    """Every patch a token, between a token that begins and one that ends the image."""

    source: ClassVar[str] = (
        "the defaults of JanusVisionConfig and JanusProcessor in transformers, which name"
        " deepseek-community/Janus-Pro-1B"
    )
    kind: ClassVar[str] = "janus"
    models: ClassVar[tuple[str, ...]] = ("janus-pro-",)
    unsaid: ClassVar[Mapping[str, int]] = {"image_size": 384, "patch_size": 16}

    def markers_of_image(self, width: int, height: int) -> int:
        return 2


VISIONS.add("janus", Janus())
