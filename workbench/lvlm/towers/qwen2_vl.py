"""Qwen2-VL's own tower: native resolution, whole frames, 2 × 2 patches merged to a token."""

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.qwen_vl import WholeVideo

if TYPE_CHECKING:
    from workbench.lvlm.context import Context


class Blocks(nn.Module):
    """Patch embedding and blocks."""

    def __init__(self, visual: Any, tables: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.patch_embed, self.blocks, self.tables = visual.patch_embed, visual.blocks, tables

    def forward(self, pixels: Tensor) -> Tensor:
        """[patches, pixels of a patch] -> [patches, width]."""
        hidden: Tensor = self.patch_embed(pixels)
        for block in self.blocks:
            hidden = block(hidden, cu_seqlens=None, position_embeddings=self.tables)
        return hidden


class Qwen2VL(WholeVideo):
    """Images of any size in whole tokens of 28 × 28 pixels; video in steps of two frames."""

    serves: ClassVar[Serves] = {"qwen2_vl": ("qwen2_vl_vision",)}
    unlisted = (
        "transformers.models.qwen2_vl.modeling_qwen2_vl",
        "Qwen2VisionTransformerPretrainedModel",
    )
    front_end = "qwen2-vl"
    config_class = "Qwen2VLVisionConfig"
    model_class = "Qwen2VisionTransformerPretrainedModel"
    out_field = "hidden_size"

    @property
    def width(self) -> int:
        return int(self.config.embed_dim)

    def mlp_weights(self) -> int:
        return 2 * self.width * int(self.width * self.config.mlp_ratio)

    def modules(
        self, visual: Any, context: "Context", grids: tuple[Grid, ...]
    ) -> tuple[nn.Module, nn.Module]:
        cos, sin = (context.keep(table) for table in self.tables(visual, context, grids))
        return Blocks(visual, (cos, sin)), visual.merger


TOWERS.add("qwen2_vl", Qwen2VL)
