"""GLM-4.1V's own tower: a learned square of positions read between its points, whole frames.

2 × 2 patches are convolved to a token before the merger, and both are the adapter.
"""

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.qwen_vl import QwenTower, indices

if TYPE_CHECKING:
    from workbench.lvlm.context import Context

KIND = "glm4v_vision"


class Blocks(nn.Module):
    """Patch embedding, positions, blocks and the norms before and after them."""

    def __init__(
        self, visual: Any, frames: tuple[Tensor, ...], tables: tuple[Tensor, Tensor]
    ) -> None:
        """``frames`` are their patches [n] and sizes [n, 3], and rows and columns of patches."""
        super().__init__()
        self.patch_embed, self.blocks = visual.patch_embed, visual.blocks
        self.post_conv_layernorm = visual.post_conv_layernorm
        self.embeddings, self.post_layernorm = visual.embeddings, visual.post_layernorm
        self.frames, self.tables = frames, tables

    def forward(self, pixels: Tensor) -> Tensor:
        """[patches, pixels of a patch] -> [patches, width]."""
        hidden: Tensor = self.post_conv_layernorm(self.patch_embed(pixels))
        hidden = self.embeddings(hidden, *self.frames)
        for block in self.blocks:
            hidden = block(hidden, cu_seqlens=None, position_embeddings=self.tables)
        normed: Tensor = self.post_layernorm(hidden)
        return normed


class Merger(nn.Module):
    """The convolution over the patches of a token, and the merger after it."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.downsample, self.merger = visual.downsample, visual.merger
        self.side = visual.spatial_merge_size

    def forward(self, features: Tensor) -> Tensor:
        """[patches, width] -> [tokens, D]."""
        squares = features.view(-1, self.side, self.side, features.shape[-1]).permute(0, 3, 1, 2)
        tokens: Tensor = self.merger(self.downsample(squares).flatten(1))
        return tokens


class Glm4v(QwenTower):
    """Images of any size in whole tokens of 28 × 28 pixels; each pair of frames is an image."""

    serves: ClassVar[Serves] = {"glm4v": (KIND, "glm4v")}
    front_end = "glm-4.1v"
    config_class = "Glm4vVisionConfig"
    model_class = "Glm4vVisionModel"

    def processor_class(self) -> Any:
        from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil

        return Glm4vImageProcessorPil

    def mlp_weights(self) -> int:
        return 3 * self.width * self.hidden  # Its MLP is as wide as a token.

    def modules(
        self, visual: Any, context: "Context", grids: tuple[Grid, ...]
    ) -> tuple[nn.Module, nn.Module]:
        stills = [grid._replace(steps=1) for grid in grids for _ in range(grid.steps)]
        patches = sum(grid.patches for grid in stills)
        lengths = indices(context, lambda: [grid.patches for grid in stills], len(stills))
        sizes = indices(context, lambda: [grid[:3] for grid in stills], len(stills), 3)
        places = indices(context, lambda: self.places(grids), patches, 2)
        rows, columns = (places[:, i].contiguous() for i in range(2))
        cos, sin = self.tables(visual, context, grids)
        for constant in (lengths, sizes, rows, columns, cos, sin):
            context.keep(constant)
        frames = (lengths, sizes, rows, columns)
        return Blocks(visual, frames, (cos, sin)), Merger(visual)

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        """An image for each pair of frames, between which time stamps may stand as text."""
        frame = self.grid_of(*self.eye.resized_frame(width, height, num_frames))
        return ((frame,),) * self.eye.steps(num_frames)

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        wide = self.width * self.patches_a_token
        return 2 * sum(map(self.tokens, grids)) * wide * self.hidden

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        merger = self.hidden * (self.hidden + 3 * self.config.intermediate_size)
        return self.entry_flops(grids) + 2 * sum(map(self.tokens, grids)) * merger


TOWERS.add("glm4v", Glm4v)
