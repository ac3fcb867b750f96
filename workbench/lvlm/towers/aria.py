"""Aria's tower and projector: SigLIP over a square of 980 pixels, whose patches queries read.

What of the square is beside the image is masked, in the tower and to the queries, and runs all the
same. The hidden states of one layer are read; the tower's last norm feeds no token and is held.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import MERGED, TOWERS, Grid, Serves, Tower, finish, implementation
from workbench.lvlm.towers.idefics2 import key_mask
from workbench.lvlm.towers.squares import depth_of, idle_layers
from workbench.visual.aria import EDGE
from workbench.visual.aria import Aria as FrontEnd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

KIND = "idefics3_vision"


class Masked(nn.Module):
    """The tower's hidden states after one of its layers.

    ``seen`` are the patches [N, rows, columns] that show the image, ``mask`` what scores get of
    the others; None where there are none.
    """

    def __init__(self, tower: Any, depth: int, seen: Tensor, mask: Tensor | None) -> None:
        super().__init__()
        self.tower, self.seen, self.mask = tower, seen, mask
        layers = [*tower.encoder.layers]
        self.run = nn.ModuleList(layers[:depth])
        tower.requires_grad_(False)
        for module in (tower.embeddings, self.run):
            module.requires_grad_(True)

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, 980, 980] -> [N, patches, width]."""
        hidden = self.tower.embeddings(pixels, patch_attention_mask=self.seen)
        for layer in self.run:
            hidden = layer(hidden, self.mask)
        return hidden


class Queries(nn.Module):
    """transformers' projector; ``hidden`` [N, patches] are those that its queries do not see."""

    def __init__(self, projector: nn.Module, hidden: Tensor) -> None:
        super().__init__()
        self.projector, self.hidden = projector, hidden

    def forward(self, features: Tensor) -> Tensor:
        """[N, patches, width] -> [N, tokens, D]."""
        return self.projector(features, attn_mask=self.hidden)


class Aria(Tower):
    """A grid has the patches that show the image; the whole square runs."""

    serves: ClassVar[Serves] = {"aria": (KIND,)}
    front_end = "aria"
    without_adapter = MERGED
    merges = True

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        self.read_config()
        layer, layers = self.whole.vision_feature_layer, self.config.num_hidden_layers
        self.depth = depth_of(model.name, self.front_end, layer, layers)
        self.image = Grid(1, self.eye.side, self.eye.side)

    @property
    def eye(self) -> FrontEnd:
        """The front end with its sizes."""
        assert isinstance(self.front, FrontEnd)
        return self.front

    def tokens(self, grid: Grid) -> int:
        return self.eye.tokens * grid.steps

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid(self.tokens(grid))

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        return (Grid(1, *self.eye.seen(width, height)),)

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        return batch * len(grids), self.config.num_channels, EDGE, EDGE

    @property
    def flags(self) -> list[str]:
        return idle_layers(self.depth, self.config.num_hidden_layers)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        from transformers.models.aria.modeling_aria import AriaProjector
        from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionTransformer

        self.config._attn_implementation = implementation(context)
        tower = context.create(lambda: Idefics3VisionTransformer(self.config))
        context.weigh_component("tower", tower, "vision_tower.", KIND)
        finish(tower, context)
        projector = context.create(lambda: AriaProjector(self.whole))
        context.weigh_component("adapter", projector, "multi_modal_projector.", KIND)
        seen = torch.zeros(len(grids), self.eye.side, self.eye.side, dtype=torch.bool)
        for each, grid in zip(seen, grids, strict=True):
            each[: grid.rows, : grid.columns] = True
        whole = all(grid[1:3] == self.image[1:3] for grid in grids)
        seen = context.keep(seen.repeat(context.cell.batch, 1, 1).to(context.device))
        flat = seen.flatten(1)
        mask = None if whole else key_mask(context, self.config, flat, flat.shape[1])
        hidden = context.keep(flat.logical_not())
        return Masked(tower, self.depth, seen, mask), Queries(projector, hidden)

    def processor(self) -> Any:
        """transformers' image processor under the settings of the front end."""
        from transformers.models.aria import image_processing_pil_aria as module

        return module.AriaImageProcessorPil(
            max_image_size=EDGE, min_image_size=self.eye.shortest_edge, split_image=False
        )

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        processor = self.processor()
        return torch.cat([processor(i, return_tensors="pt")["pixel_values"] for i in images])

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        pixels = self.config.num_channels * self.eye.patch_size**2
        return 2 * len(grids) * self.eye.side**2 * self.config.hidden_size * pixels

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        width, mlp, rows = self.config.hidden_size, self.config.intermediate_size, self.eye.side**2
        row = 2 * (4 * width**2 + 2 * width * mlp) + 4 * rows * width
        return self.patch_flops(grids) + self.depth * len(grids) * rows * row

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        width, rows, tokens = self.config.hidden_size, self.eye.side**2, self.eye.tokens
        keys = 8 * rows * width**2  # Two projections each of keys and of values.
        queries = tokens * (8 * width**2 + 4 * rows * width)
        mlp = 2 * tokens * self.hidden * (width + self.hidden)
        return len(grids) * (keys + queries + mlp)


TOWERS.add("aria", Aria)
