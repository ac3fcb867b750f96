"""GLM-OCR: images and video as GLM-4.6V's, whose processors it has."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.visual import VISIONS
from workbench.visual.glm46v import Glm46v


@dataclass(frozen=True)
class GlmOcr(Glm46v):
    """Nothing differs but the model type."""

    source: ClassVar[str] = (
        "transformers' image and video processors of GLM-4.6V, which"
        " https://huggingface.co/zai-org/GLM-OCR names (from memory)"
    )
    models: ClassVar[tuple[str, ...]] = ("glm-ocr",)
    model_type: ClassVar[str] = "glm_ocr"


VISIONS.add("glm-ocr", GlmOcr())
