"""ERNIE 4.5 VL's tower and resampler: 2 × 2 patches, then two frames, joined by an MLP each.

Patches see their own frame. An image stands for both frames of a pair, and transformers multiplies
it twice.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import TOWERS, Grid, Serves, finish, implementation
from workbench.lvlm.towers.frames import GroupedAttention
from workbench.lvlm.towers.qwen_vl import QwenTower, indices
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context

MODULE = "transformers.models.ernie4_5_vl_moe.modeling_ernie4_5_vl_moe"
PROCESSOR = "transformers.models.ernie4_5_vl_moe.image_processing_pil_ernie4_5_vl_moe"
KIND = "ernie4_5_vl_moe_vision"
TOGETHER = 2
"""Frames of a token."""


class Blocks(nn.Module):
    """Patch embedding, blocks and the norm after them."""

    def __init__(self, tower: Any, tables: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.tower, self.tables = tower, tables

    def forward(self, pixels: Tensor) -> Tensor:
        """[patches, pixels of a patch] -> [patches, width]."""
        hidden: Tensor = self.tower.patch_embed(pixels)
        for block in self.tower.blocks:
            hidden = block(hidden, cu_seqlens=None, position_embeddings=self.tables)
        normed: Tensor = self.tower.ln(hidden)
        return normed


class Resampler(nn.Module):
    """transformers' resampler, whose pairs of frames are known beforehand."""

    def __init__(self, resampler: Any, first: Tensor, second: Tensor) -> None:
        """``first`` and ``second`` are the tokens of a pair's two frames, int64 [tokens]."""
        super().__init__()
        self.resampler, self.first, self.second = resampler, first, second

    def forward(self, features: Tensor) -> Tensor:
        """[patches, width] -> [tokens, D]."""
        own = self.resampler
        squares = own.spatial_linear(features.reshape(-1, own.spatial_dim))
        pair = (squares.index_select(0, rows) for rows in (self.first, self.second))
        joined: Tensor = own.after_norm(own.mlp(own.temporal_linear(torch.cat([*pair], -1))))
        return joined


class Ernie45VL(QwenTower):
    """Images of any size in whole tokens of 28 × 28 pixels; a video is one grid of its frames."""

    serves: ClassVar[Serves] = {"ernie4_5_vl_moe": (KIND,)}
    unlisted = (MODULE, "Ernie4_5_VLMoeVisionTransformerPretrainedModel")
    front_end = "ernie-4.5-vl"

    def settled(self) -> Any:
        whole = self.model.whole
        assert whole is not None, "chosen by its config"
        config = whole.vision_config
        if config.temporal_merge_size != TOGETHER or not isinstance(config.patch_size, int):
            raise RequestError(
                f"model {self.model.name!r}: vision_config.temporal_merge_size "
                f"{config.temporal_merge_size!r:.60}, patch_size {config.patch_size!r:.60}: its "
                "tokens are of pairs of frames, 2, and of square patches, a number"
            )
        return config

    def mlp_weights(self) -> int:
        return 2 * self.width * int(self.config.intermediate_size)

    @property
    def _pixels_a_patch(self) -> int:
        return int(self.config.in_channels * self.config.patch_size**2)

    def steps(self, grid: Grid) -> int:
        """Steps in time of an image's or a video's tokens."""
        return grid.steps if grid.seconds is None else grid.steps // TOGETHER

    def tokens(self, grid: Grid) -> int:
        return self.steps(grid) * grid.rows * grid.columns // self.patches_a_token

    def token_grids(self, grids: Iterable[Grid]) -> tuple[TokenGrid, ...]:
        return tuple(self.token_grid(grid) for grid in grids for _ in range(self.steps(grid)))

    def places_of(self, grid: Grid) -> Tensor:
        return super().places_of(grid._replace(steps=self.steps(grid)))

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        module = import_module(MODULE)
        self.config._attn_implementation = implementation(context)
        kind = module.Ernie4_5_VLMoeVisionTransformerPretrainedModel
        tower = context.create(lambda: kind(self.config))
        context.weigh_component("tower", tower, "vision_tower.", KIND)
        finish(tower, context)
        whole, make = self.model.whole, module.Ernie4_5_VLMoeVariableResolutionResamplerModel
        resampler = context.create(lambda: make(whole))
        context.weigh_component("adapter", resampler, "resampler_model.", KIND)
        batch = grids * context.cell.batch
        frames = self.frames(batch)
        for block in tower.blocks:
            block.attn = GroupedAttention(block.attn, frames, True, module)
        return self.modules((tower, resampler), context, batch)

    def modules(
        self, visual: Any, context: "Context", grids: tuple[Grid, ...]
    ) -> tuple[nn.Module, nn.Module]:
        tower, resampler = visual
        cos, sin = (context.keep(table) for table in self.tables(tower, context, grids))
        number = sum(map(self.tokens, grids))
        first = context.keep(indices(context, lambda: self.pair(grids, 0), number))
        second = context.keep(indices(context, lambda: self.pair(grids, 1), number))
        return Blocks(tower, (cos, sin)), Resampler(resampler, first, second)

    def pair(self, grids: tuple[Grid, ...], late: int) -> list[int]:
        """For every token that of its pair's first or second frame, counted over all frames."""
        rows: list[int] = []
        start = 0
        for grid in grids:
            size = grid.rows * grid.columns // self.patches_a_token
            shift = late if grid.seconds is not None else 0
            apart = TOGETHER if grid.seconds is not None else 1
            for step in range(self.steps(grid)):
                begin = start + (apart * step + shift) * size
                rows += range(begin, begin + size)
            start += grid.steps * size
        return rows

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        """The whole video as one; the last frame stands twice where they are odd in number."""
        frame = self.grid_of(*self.eye.resized_frame(width, height, num_frames))
        frames = TOGETHER * self.eye.steps(num_frames)
        return ((frame._replace(steps=frames, seconds=1 / fps),),)

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        stills = [self.still(image, num_frames) for image in images]
        if num_frames % TOGETHER:
            stills.append(stills[-1])
        return torch.cat(stills)

    def still(self, image: "Image", num_frames: int) -> Tensor:
        """transformers' patches of an image, or of one of so many frames: [patches, pixels]."""
        kind, eye = import_module(PROCESSOR).Ernie4_5_VLMoeImageProcessorPil, self.eye
        picture = image.convert("RGB")
        if num_frames:
            # A frame's size is not that of an image: it is made here, by the processor's filter.
            picture = picture.resize(eye.resized_frame(*image.size, num_frames), kind.resample)
        processor = kind(
            do_resize=not num_frames,
            size={"shortest_edge": eye.min_pixels, "longest_edge": eye.max_pixels},
            patch_size=self.config.patch_size,
            merge_size=self.merge,
        )
        patches: Tensor = processor(picture, return_tensors="pt")["pixel_values"]
        return patches

    def squares(self, grids: tuple[Grid, ...]) -> int:
        """2 × 2 patches of all frames."""
        return sum(grid.patches for grid in grids) // self.patches_a_token

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        wide = self.width * self.patches_a_token
        return 2 * self.squares(grids) * wide**2

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        wide, tokens = self.width * self.patches_a_token, sum(map(self.tokens, grids))
        joined = (TOGETHER + 1) * wide**2 + wide * self.hidden
        return 2 * self.entry_flops(grids) + 2 * tokens * joined


TOWERS.add("ernie4_5_vl_moe", Ernie45VL)
