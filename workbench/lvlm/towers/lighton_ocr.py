"""LightOnOCR's tower and adapter: Mistral Small 3's, patches beyond whole tokens run and are left.

Images have whole patches, of which 2 × 2 are merged: an odd last row or column feeds no token.
"""

from typing import TYPE_CHECKING, ClassVar

from torch import nn

from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.mistral3 import Merged, Mistral3
from workbench.lvlm.towers.pixtral import KIND
from workbench.visual.lighton_ocr import LightOnOcr as FrontEnd

if TYPE_CHECKING:
    from workbench.lvlm.context import Context


class LightOnOcr(Mistral3):
    """A token is 2 × 2 patches."""

    serves: ClassVar[Serves] = {"lighton_ocr": (KIND,)}
    front_end = "lighton-ocr"
    prefix = "vision_encoder."

    def tokens(self, grid: Grid) -> int:
        return grid.steps * (grid.rows // self.merge) * (grid.columns // self.merge)

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        assert isinstance(self.front, FrontEnd)
        _ = self.front.grid(width, height)  # Raises where there is no token.
        return (Grid(1, *self.front.patches(width, height)),)

    def adapter(self, context: "Context", grids: tuple[Grid, ...]) -> nn.Module:
        from transformers.models.lighton_ocr import modeling_lighton_ocr as module

        projection = context.create(lambda: module.LightOnOcrMultiModalProjector(self.whole))
        context.weigh_component("adapter", projection, "vision_projection.", KIND)
        return Merged(projection, self.sizes(grids))


TOWERS.add("lighton_ocr", LightOnOcr)
