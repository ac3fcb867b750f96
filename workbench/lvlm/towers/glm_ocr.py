"""GLM-OCR's tower: GLM-4.1V's without learned positions, with normed queries and keys.

Its MLPs are as wide as the config says; the merger's is three times as wide as a token.
"""

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.glm4v import Glm4v, Merger

if TYPE_CHECKING:
    from workbench.lvlm.context import Context


class Blocks(nn.Module):
    """Patch embedding, blocks and the norm after them."""

    def __init__(self, visual: Any, tables: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.patch_embed, self.blocks = visual.patch_embed, visual.blocks
        self.post_layernorm, self.tables = visual.post_layernorm, tables

    def forward(self, pixels: Tensor) -> Tensor:
        """[patches, pixels of a patch] -> [patches, width]."""
        hidden: Tensor = self.patch_embed(pixels)
        for block in self.blocks:
            hidden = block(hidden, cu_seqlens=None, position_embeddings=self.tables)
        normed: Tensor = self.post_layernorm(hidden)
        return normed


class GlmOcr(Glm4v):
    """Images of any size in whole tokens of 28 × 28 pixels; each pair of frames is an image."""

    serves: ClassVar[Serves] = {"glm_ocr": ("glm_ocr_vision", "glm_ocr")}
    front_end = "glm-ocr"
    config_class = "GlmOcrVisionConfig"
    model_class = "GlmOcrVisionModel"

    def mlp_weights(self) -> int:
        return 3 * self.width * int(self.config.intermediate_size)

    def modules(
        self, visual: Any, context: "Context", grids: tuple[Grid, ...]
    ) -> tuple[nn.Module, nn.Module]:
        cos, sin = (context.keep(table) for table in self.tables(visual, context, grids))
        return Blocks(visual, (cos, sin)), Merger(visual)

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        merger = self.hidden**2 * (1 + 3 * self.config.in_channels)
        return self.entry_flops(grids) + 2 * sum(map(self.tokens, grids)) * merger


TOWERS.add("glm_ocr", GlmOcr)
