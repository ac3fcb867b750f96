"""GLM-4.6V: images as GLM-4.1V's; of a video as many frames as its length asks for."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.visual import VISIONS
from workbench.visual.glm4v import Glm4v


@dataclass(frozen=True)
class Glm46v(Glm4v):
    """Frames of a video follow from its length: the rate that is asked for has no say."""

    source: ClassVar[str] = (
        "transformers' image and video processors of GLM-4.6V (size, sample_frames)"
    )
    models: ClassVar[tuple[str, ...]] = ("glm-4.6v",)
    model_type: ClassVar[str] = "glm46v"

    by_length: bool = True


VISIONS.add("glm-4.6v", Glm46v())
