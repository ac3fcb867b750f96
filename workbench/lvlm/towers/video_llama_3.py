"""VideoLLaMA 3's own tower and projector: images of any size, whose patches a video shrinks 2 × 2.

Each frame of a video is an image between text, for its processor writes the time before it.
"""

from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.lvlm.layout import Layout
from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.navit import NaVit, Visual
from workbench.visual.video_llama_3 import VideoLlama3 as FrontEnd

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context


class Alike(NamedTuple):
    """Images of one size that follow each other: how many, rows and columns of tokens, and the
    patches a side of a token."""

    number: int
    rows: int
    columns: int
    side: int

    @property
    def patches(self) -> int:
        """Of all of them."""
        return self.number * self.rows * self.columns * self.side**2


class Blocks(nn.Module):
    """Patch embedding, layers, the last norm, and patches shrunk to tokens."""

    def __init__(self, tower: Any, images: list[Alike], tables: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.tower, self.images, self.tables = tower, images, tables

    def forward(self, pixels: Tensor) -> Tensor:
        """[patches, pixels of a patch] -> [tokens, width]."""
        hidden: Tensor = self.tower.embeddings(pixels)
        for layer in self.tower.encoder.layers:
            hidden = layer(hidden, cu_seqlens=None, position_embeddings=self.tables)
        hidden = self.tower.post_layernorm(hidden)
        runs = hidden.split([run.patches for run in self.images])
        return torch.cat([*map(_shrunk, runs, self.images)])


def _shrunk(rows: Tensor, run: Alike) -> Tensor:
    """As transformers' ``pixel_unshuffle``: patches lie token by token; bilinear."""
    number, high, wide, side = run
    squares = rows.view(number, high, wide, side, side, -1).permute(0, 1, 3, 2, 4, 5)
    picture = squares.reshape(number, high * side, wide * side, -1).permute(0, 3, 1, 2)
    shrunk = F.interpolate(picture, size=(high, wide), mode="bilinear")
    return shrunk.permute(0, 2, 3, 1).reshape(-1, rows.shape[-1])


class VideoLlama3(NaVit):
    """The front end's ``merge_size`` are the patches a side of an image's token, 1 as published;
    those of a frame's are 2."""

    serves: ClassVar[Serves] = {"video_llama_3": ("video_llama_3_vision",)}
    front_end = "video-llama-3"
    package = "video_llama_3"
    kind = "video_llama_3_vision"
    model_class = "VideoLlama3VisionModel"
    tower_prefix = "vision_model."
    has_positions = False
    merges = False

    def side_of_token(self) -> int:
        own = self.own_front
        assert isinstance(own, FrontEnd)
        return own.merge_size

    @property
    def flags(self) -> list[str]:
        if not self.eye.compresses:
            return super().flags
        return [
            *super().flags,
            "video: every token of a frame counts; its processor drops those whose pixels are "
            "those of the frame before (use_token_compression), behind tower and adapter, and "
            "sizes do not tell which",
        ]

    @property
    def eye(self) -> FrontEnd:
        assert isinstance(self.front, FrontEnd)
        return self.front

    def block(self, grid: Grid) -> int:
        """Patches a side of a token of that image or frame."""
        return self.merge if grid.seconds is None else self.eye.video_merge_size

    def tokens(self, grid: Grid) -> int:
        return grid.patches // self.block(grid) ** 2

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid.of(*self._shape(grid)[:2])

    def encoder(self, tower: Any) -> Any:
        return tower.encoder

    def projector(self) -> nn.Module:
        made: nn.Module = self.transformers().VideoLlama3Projector(self.model.whole)
        return made

    def modules(
        self, visual: Visual, context: "Context", grids: tuple[Grid, ...]
    ) -> tuple[nn.Module, nn.Module]:
        cos, sin = (context.keep(table) for table in self.tables(visual.tower, context, grids))
        sizes = groupby(grids, key=self._shape)
        images = [Alike(sum(grid.steps for grid in same), *size) for size, same in sizes]
        return Blocks(visual.tower, images, (cos, sin)), visual.projector

    def _shape(self, grid: Grid) -> tuple[int, int, int]:
        side = self.block(grid)
        return grid.rows // side, grid.columns // side, side

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        size = self.eye.resized_frame(width, height, num_frames)
        return ((self.grid_of(*size)._replace(seconds=1 / fps),),) * num_frames

    def still(self, image: "Image", num_frames: int) -> Tensor:
        """transformers' patches of an image, or of one of so many frames: [patches, pixels]."""
        kind = self.transformers("image_processing_pil").VideoLlama3ImageProcessorPil
        eye = self.eye.of_frames if num_frames else self.eye
        picture = image.convert("RGB")
        if num_frames:
            # A frame's size is not that of an image: it is made here, by the processor's filter.
            size = self.eye.resized_frame(*image.size, num_frames)
            picture = picture.resize(size, kind.resample)
        processor = kind(
            do_resize=not num_frames,
            size={"shortest_edge": eye.min_pixels, "longest_edge": eye.max_pixels},
            patch_size=self.config.patch_size,
            merge_size=eye.merge_size,
        )
        patches: Tensor = processor(picture, return_tensors="pt")["pixel_values"]
        return patches

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return 2 * sum(map(self.tokens, grids)) * self.width * self.hidden

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        return 2 * sum(map(self.tokens, grids)) * (self.width + self.hidden) * self.hidden

    def positions(self, layout: Layout, grids: tuple[Grid, ...]) -> None:
        """Indices: its decoder is Qwen2."""


TOWERS.add("video_llama_3", VideoLlama3)
