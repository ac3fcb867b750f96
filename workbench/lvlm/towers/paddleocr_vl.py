"""PaddleOCR-VL's tower: SigLIP for images of any size under RoPE, 2 × 2 patches merged to a token.

A learned square of positions is read between its points as well. Patches lie row by row, and the
projector brings those of a token side by side.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.kernels.modelled import tracing
from workbench.lvlm.towers import MERGED, TOWERS, Grid, Serves
from workbench.lvlm.towers.frames import Frames
from workbench.lvlm.towers.navit import NaVit, Visual
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context

TAPS = 4
"""Learned positions of which a patch's is made: bilinear."""


class Blocks(nn.Module):
    """Patch embedding, positions, layers and the last norm."""

    def __init__(
        self, tower: Any, positions: dict[str, Tensor], tables: tuple[Tensor, Tensor]
    ) -> None:
        """``positions`` by transformers' words: learned ones [patches, taps] and their weights."""
        super().__init__()
        self.tower, self.positions, self.tables = tower, positions, tables

    def forward(self, pixels: Tensor) -> Tensor:
        """[patches, C, p, p] -> [patches, width]."""
        hidden: Tensor = self.tower.embeddings(pixels[None], **self.positions)
        for layer in self.tower.encoder.layers:
            hidden = layer(hidden, cu_seqlens=None, position_embeddings=self.tables)
        normed: Tensor = self.tower.post_layernorm(hidden)
        return normed


class Projector(nn.Module):
    """transformers' projector, images of one size in one call."""

    def __init__(self, projector: Any, images: list[tuple[Frames, int]], side: int) -> None:
        """``images`` come with the patches of a row."""
        super().__init__()
        self.projector, self.images, self.side = projector, images, side

    def forward(self, features: Tensor) -> Tensor:
        """[patches, width] -> [tokens, D]."""
        project, side = self.projector, self.side
        tokens, start = [], 0
        for run, columns in self.images:
            count = run.number * run.patches
            rows = project.pre_norm(features[start : start + count])
            squares = rows.view(-1, side, columns // side, side, rows.shape[-1]).transpose(1, 2)
            wide = squares.reshape(count // side**2, -1)
            tokens.append(project.linear_2(project.act(project.linear_1(wide))))
            start += count
        return torch.cat(tokens)


class PaddleOcrVL(NaVit):
    """Images of any size in whole tokens of 28 × 28 pixels; a frame is an image."""

    serves: ClassVar[Serves] = {"paddleocr_vl": ("paddleocr_vl_vision",)}
    unlisted = ("transformers.models.paddleocr_vl.modeling_paddleocr_vl", "PaddleOCRVisionModel")
    front_end = "paddleocr-vl"
    without_adapter = MERGED
    package = "paddleocr_vl"
    kind = "paddleocr_vl_vision"
    model_class = "PaddleOCRVisionModel"
    tower_prefix = "visual."

    def settled(self) -> Any:
        config = super().settled()
        if config.image_size < config.patch_size:
            raise RequestError(
                f"model {self.model.name!r}: vision_config.image_size {config.image_size}: at "
                f"least patch_size {config.patch_size}"
            )
        return config

    def block(self, grid: Grid) -> int:
        return 1  # Row by row.

    def encoder(self, tower: Any) -> Any:
        return tower.vision_model.encoder

    def projector(self) -> nn.Module:
        made: nn.Module = self.transformers().PaddleOCRProjector(self.model.whole)
        return made

    def modules(
        self, visual: Visual, context: "Context", grids: tuple[Grid, ...]
    ) -> tuple[nn.Module, nn.Module]:
        tables = self.tables(self.encoder(visual.tower), context, grids)
        cos, sin = (context.keep(table) for table in tables)
        positions = {
            name: context.keep(tensor) for name, tensor in self.learned(context, grids).items()
        }
        columns = [grid.columns for grid in grids for _ in range(grid.steps)]
        images, first = [], 0
        for run in self.frames(grids):
            images.append((run, columns[first]))
            first += run.number
        blocks = Blocks(visual.tower.vision_model, positions, (cos, sin))
        return blocks, Projector(visual.projector, images, self.merge)

    def learned(self, context: "Context", grids: tuple[Grid, ...]) -> dict[str, Tensor]:
        """By transformers' words: of which learned positions a patch's is made, and how."""
        from transformers.vision_utils import get_vision_interpolation_indices_and_weights

        if tracing(context.device) or not grids:
            size, device = (sum(grid.patches for grid in grids), TAPS), context.device
            taps = torch.empty(size, dtype=torch.int64, device=device)
            weights = torch.empty(size, device=device)
        else:
            side = self.config.image_size // self.config.patch_size
            sizes = torch.tensor([grid[:3] for grid in grids], device=context.device)
            taps, weights = get_vision_interpolation_indices_and_weights(sizes, side)
        return {"interp_indices": taps, "interp_weights": weights}

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        return (self.of_image(width, height),) * num_frames

    def still(self, image: "Image", num_frames: int) -> Tensor:
        """transformers' patches of an image: [patches, C, p, p]."""
        eye = self.eye
        processor = self.transformers("image_processing_pil").PaddleOCRVLImageProcessorPil(
            size={"shortest_edge": eye.min_pixels, "longest_edge": eye.max_pixels},
            patch_size=self.config.patch_size,
            merge_size=self.merge,
            **self.normalised(),
        )
        patches: Tensor = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"]
        return patches

    def normalised(self) -> dict[str, Any]:
        half = [0.5, 0.5, 0.5]
        return {"image_mean": half, "image_std": half}

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        side = self.config.patch_size
        patches = batch * sum(grid.patches for grid in grids)
        return patches, self.config.num_channels, side, side


TOWERS.add("paddleocr_vl", PaddleOcrVL)
