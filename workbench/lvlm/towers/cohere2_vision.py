"""Command A Vision's tower and projector: Aya Vision's, after SigLIP's last norm and without one.

Pixels of files are those of its processor, which needs torchvision, without it.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.aya_vision import KIND, AyaVision
from workbench.lvlm.towers.siglip import Features

if TYPE_CHECKING:
    from collections.abc import Iterable

    from PIL.Image import Image


class Cohere2Vision(AyaVision):
    """Tiles of another canvas; all of SigLIP's layers and its last norm feed the tokens."""

    serves: ClassVar[Serves] = {"cohere2_vision": (KIND,)}
    front_end = "cohere2-vision"

    def depth_taken(self) -> int:
        return int(self.config.num_hidden_layers)

    def projector(self) -> Any:
        from transformers.models.cohere2_vision.modeling_cohere2_vision import (
            Cohere2VisionMultiModalProjector,
        )

        return Cohere2VisionMultiModalProjector

    def rows(self, tower: Any) -> nn.Module:
        if tower.use_head:
            tower.head.requires_grad_(False)
            tower.use_head = False
        return Features(tower)

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        views = []
        for image in images:
            rgb = image.convert("RGB")
            raw = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
            pixels = raw.view(1, rgb.height, rgb.width, 3).permute(0, 3, 1, 2).float()
            columns, rows = self.eye.tiles(rgb.width, rgb.height)
            views.append(self._resized(pixels, rows, columns))
            if rows * columns > 1:
                views.append(self._resized(pixels, 1, 1))
        return torch.cat(views)

    def _resized(self, pixels: Tensor, rows: int, columns: int) -> Tensor:
        """[1, 3, H, W] in 0 to 255 -> tiles [rows · columns, 3, E, E] about 0."""
        from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

        edge = self.eye.image_size
        size = rows * edge, columns * edge
        scaled = F.interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True)
        mean, std = (
            torch.tensor(values).view(3, 1, 1) * 255
            for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
        )
        scaled = (scaled.round().clamp(0, 255) - mean) / std
        tiles = scaled[0].unfold(1, edge, edge).unfold(2, edge, edge)  # [3, rows, columns, E, E]
        return tiles.permute(1, 2, 0, 3, 4).flatten(0, 1)

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return self._first(grids)


TOWERS.add("cohere2_vision", Cohere2Vision)
