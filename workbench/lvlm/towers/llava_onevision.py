"""LLaVA-OneVision's tower and adapter: SigLIP under LLaVA-NeXT's tiles, and pooled video.

Images that a sample shows together are not tiled: each is its base view and a newline. |V| without
files stands for such images, or for a video where only that makes so many tokens.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.llava_next import LlavaNext, Packer
from workbench.visual.llava_onevision import LlavaOnevision as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image


class VideoPacker(Packer):
    """The same, and frames pooled to half their rows and columns, a newline after the last."""

    def pack(self, views: Tensor, grid: Grid) -> Tensor:
        if grid.seconds is None:
            return super().pack(views, grid)
        frames = views.unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2).contiguous()
        half = ceil(self.side / 2)
        pooled = nn.functional.interpolate(frames, size=[half, half], mode="bilinear")
        rows = pooled.permute(0, 2, 3, 1).flatten(0, 2)
        return torch.cat((rows, self.newline.image_newline[None]))


class LlavaOnevision(LlavaNext):
    """A video is one grid of all its frames; an image beside others has no tiles."""

    serves: ClassVar[Serves] = {"llava_onevision": ("siglip_vision_model",)}
    front_end = "llava-onevision"
    packer = VideoPacker
    several = False

    @property
    def eye(self) -> FrontEnd:
        assert isinstance(self.front, FrontEnd)
        return self.front

    @cached_property
    def image(self) -> Grid:  # type: ignore[override]
        """An image beside others."""
        return Grid(1, self.side, self.side)

    def tokens(self, grid: Grid) -> int:
        if grid.seconds is None:
            return super().tokens(grid)
        return self.eye.tokens_of_video(1, 1, grid.steps)

    def grids(self, num_visual: int) -> tuple[Grid, ...]:
        """Images beside each other; else a video of one frame a second."""
        frames, rest = divmod(num_visual - 1, self.eye.tokens_of_step(1, 1))
        if num_visual % self.tokens_each and frames > 0 and not rest:
            return (Grid(frames, self.side, self.side, 1.0),)
        try:
            return super().grids(num_visual)
        except RequestError as error:
            near = 1 + (frames + (frames == 0)) * self.eye.tokens_of_step(1, 1)
            raise RequestError(f"{error}, or of a video {near}") from None

    def of_images(self, sizes: Sequence[tuple[int, int]]) -> list[tuple[Grid, ...]]:
        return super().of_images(sizes) if len(sizes) == 1 else [(self.image,)] * len(sizes)

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        return ((Grid(num_frames, self.side, self.side, 1.0 / fps),),)

    def processor(self, frames: bool = False) -> Any:
        from transformers.models.llava_onevision import (
            image_processing_pil_llava_onevision as module,
        )

        side = self.eye.image_size
        return module.LlavaOnevisionImageProcessorPil(
            size={"height": side, "width": side},
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
            image_grid_pinpoints=[list(pair) for pair in self.eye.pinpoints],
        )

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        """Tiles of one image, else the squares of several; frames are resized to one each."""
        from transformers.models.siglip import image_processing_pil_siglip as siglip

        if num_frames:
            side = self.eye.image_size
            one = siglip.SiglipImageProcessorPil(size={"height": side, "width": side}, resample=3)
            return torch.cat([one(i, return_tensors="pt")["pixel_values"] for i in images])
        pixels = self.processor()([[*images]], return_tensors="pt")["pixel_values"]
        return pixels.flatten(0, -4)


TOWERS.add("llava_onevision", LlavaOnevision)
