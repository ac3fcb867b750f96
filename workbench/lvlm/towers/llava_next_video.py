"""LLaVA-NeXT-Video's tower and adapter: LLaVA-NeXT's, and frames pooled before the projector.

|V| without files stands for images, or for frames where only these make so many tokens.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.llava_next import LlavaNext, Packer
from workbench.visual.llava_next_video import LlavaNextVideo as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workbench.lvlm.models import Resolved

POOLS = {"average": nn.AvgPool2d, "max": nn.MaxPool2d}


class FramePacker(Packer):
    """The same; frames are pooled to fewer rows and columns, and no newline follows."""

    def __init__(
        self, projector: nn.Module, newline: nn.Module, tower: Any, grids: tuple[Grid, ...]
    ) -> None:
        super().__init__(projector, newline, tower, grids)  # type: ignore[arg-type]
        self.pool, self.frames = tower.pool, all(grid.tiles is None for grid in grids)

    def forward(self, features: Tensor) -> Tensor:
        if not self.frames:
            return super().forward(features)
        frames = features.unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
        pooled = self.pool(frames).flatten(2).transpose(1, 2).contiguous()
        return torch.cat([*self.projector(pooled)])


class LlavaNextVideo(LlavaNext):
    """A frame of a video is a grid without tiles."""

    serves: ClassVar[Serves] = {"llava_next_video": ("clip_vision_model",)}
    front_end = "llava-next-video"
    packer = FramePacker
    several = False

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        mode, stride = self.whole.spatial_pool_mode, self.eye.frame_pool
        if mode not in POOLS:
            raise RequestError(
                f"model {self.name!r}: spatial_pool_mode {mode!r:.60}: {' or '.join(POOLS)}"
            )
        if stride > self.side:
            raise RequestError(
                f"model {self.name!r}: spatial_pool_stride {stride}: a frame has {self.side} "
                "patches a side"
            )
        self.pool = POOLS[mode](kernel_size=stride, stride=stride)

    @property
    def eye(self) -> FrontEnd:
        assert isinstance(self.front, FrontEnd)
        return self.front

    @cached_property
    def frame(self) -> Grid:
        """One frame of a video."""
        return Grid(1, self.side, self.side)

    def tokens(self, grid: Grid) -> int:
        return self.eye.tokens_of_step(1, 1) if grid.tiles is None else super().tokens(grid)

    def token_grids(self, grids: "Iterable[Grid]") -> tuple[TokenGrid, ...]:
        side = self.side // self.eye.frame_pool
        return tuple(
            TokenGrid.of(side, side) if grid.tiles is None else TokenGrid(self.tokens(grid))
            for grid in grids
        )

    def grids(self, num_visual: int) -> tuple[Grid, ...]:
        frames, rest = divmod(num_visual, self.tokens(self.frame))
        if num_visual % self.tokens_each and not rest:
            return (self.frame,) * frames
        return super().grids(num_visual)

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        return ((self.frame,),) * num_frames

    def processor(self, frames: bool = False) -> Any:
        """Its own of images; a frame is resized and cropped as CLIP's does it."""
        from transformers.models.clip import image_processing_pil_clip as clip

        if not frames:
            return super().processor()
        side = self.eye.image_size
        square = {"height": side, "width": side}
        return clip.CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=square)

    def _projected(self, grids: tuple[Grid, ...]) -> int:
        """Rows that run through the projector."""
        if all(grid.tiles is None for grid in grids):
            return sum(map(self.tokens, grids))
        return self._squares(grids) * self.side**2

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return 2 * self._projected(grids) * self.hidden * self.config.hidden_size

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        width = self.config.hidden_size + self.hidden
        return 2 * self._projected(grids) * self.hidden * width


TOWERS.add("llava_next_video", LlavaNextVideo)
