"""SigLIP frames with the grid pooled 2 × 2, as LLaVA-OneVision takes video: 196 tokens a frame."""

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.siglip import GRID

STRIDE = 2


@dataclass(frozen=True)
class Pooled(FrontEnd):
    """27 × 27 patches interpolated to 14 × 14; an odd edge keeps its remainder."""

    source: ClassVar[str] = (
        "LLaVA-OneVision, arXiv 2408.03326: a video's frames are interpolated to 196 tokens"
    )

    def tokens_of_image(self, width: int, height: int) -> int:
        return ceil(GRID / STRIDE) ** 2


VISIONS.add("pooled", Pooled())
