"""Llama 3.2 Vision's own tower: four tiles an image in one sequence, local and global layers.

transformers' module runs as it is: every image is padded to its most tiles and every tile to whole
eights of rows, under a mask that hides padding from padding alone, so that what stands in the
padding reaches the patches. Features of five layers are laid beside those of the last. The
projector and the decoder have the tiles of an image alone; transformers also projects the padded
ones, which no text sees.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import ANOTHER, TOWERS, Grid, Serves, Tower, finish, implementation
from workbench.lvlm.towers.squares import first
from workbench.visual.mllama import Mllama as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

KIND = "mllama_vision_model"
EIGHT = 8
"""Rows of a tile are padded to whole ones of these."""


class Tiles(nn.Module):
    """transformers' tower over padded images, and the rows of their tiles."""

    def __init__(self, tower: Any, shapes: Tensor, mask: Tensor, counts: list[int]) -> None:
        super().__init__()
        self.tower, self.shapes, self.mask, self.counts = tower, shapes, mask, counts

    def forward(self, pixels: Tensor) -> Tensor:
        """[images, tiles, 3, edge, edge] -> [rows of all tiles, width of the features]."""
        states: Tensor = self.tower(
            pixel_values=pixels[:, None],
            aspect_ratio_ids=self.shapes,
            aspect_ratio_mask=self.mask,
        )[0][:, 0]
        if min(self.counts) == states.shape[1]:
            return states.flatten(0, 2)
        return torch.cat(
            [image[:count].flatten(0, 1) for image, count in zip(states, self.counts, strict=True)]
        )


class Mllama(Tower):
    """An image is as many tiles as its front end chooses, each with a class token."""

    serves: ClassVar[Serves] = {"mllama": (KIND,)}
    unlisted = ("transformers.models.mllama.modeling_mllama", "MllamaVisionModel")
    front_end = "mllama"
    without_adapter = ANOTHER

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        self.read_config()
        self.name, self.family = model.name, model.family
        self.shapes = [tuple(shape) for shape in self.config.supported_aspect_ratios]
        most = self.config.max_num_tiles
        indices, depth = self.config.intermediate_layers_indices, self.config.num_hidden_layers
        if any(not 0 <= i < depth for i in indices):
            raise RequestError(
                f"model {model.name!r}: intermediate_layers_indices {indices!r:.60}: layers of "
                f"the tower, 0 to {depth - 1}"
            )
        if self.config.vision_output_dim != (1 + len(indices)) * self.config.hidden_size:
            raise RequestError(
                f"model {model.name!r}: vision_output_dim {self.config.vision_output_dim}: "
                f"{1 + len(indices)} features of {self.config.hidden_size} lie side by side"
            )
        fitting = [shape for shape in self.shapes if shape[0] * shape[1] <= most]
        full = max(fitting, key=lambda s: (s[0] * s[1], -abs(s[0] - s[1])))
        self.image = self._grid(*full)

    def _grid(self, rows: int, columns: int) -> Grid:
        if (rows, columns) not in self.shapes:
            raise RequestError(
                f"model {self.name!r}: supported_aspect_ratios has no {rows} × {columns} tiles, "
                "which its processor would make"
            )
        side = first(self.config.image_size) // first(self.config.patch_size)
        return Grid(1, rows * side, columns * side, tiles=(rows, columns))

    @property
    def tile_rows(self) -> int:
        """Patches of a tile and its class token."""
        return (first(self.config.image_size) // first(self.config.patch_size)) ** 2 + 1

    def tokens(self, grid: Grid) -> int:
        return self.count(grid) * self.tile_rows

    @staticmethod
    def count(grid: Grid) -> int:
        """Tiles of an image."""
        assert grid.tiles is not None, "made here"
        return grid.tiles[0] * grid.tiles[1]

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid(self.tokens(grid))

    def grids(self, num_visual: int) -> tuple[Grid, ...]:
        """Whole images, and one of fewer tiles for what is left."""
        count, rest = divmod(num_visual, self.tokens_each)
        tiles, more = divmod(rest, self.tile_rows)
        shape = next((s for s in self.shapes if s[0] * s[1] == tiles), None)
        if more or (rest and shape is None):
            below = num_visual - num_visual % self.tile_rows
            raise RequestError(
                f"num_visual {num_visual}: scope lvlm makes {self.tile_rows} tokens a tile; the "
                f"nearest are {below} and {below + self.tile_rows}"
            )
        last = (self._grid(*shape),) if rest and shape is not None else ()
        return (self.image,) * count + last

    @property
    def eye(self) -> FrontEnd:
        """The front end with its sizes."""
        assert isinstance(self.front, FrontEnd)
        return self.front

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        self.config._attn_implementation = implementation(context)
        tower = context.create(
            lambda: self.family.from_transformers("MllamaVisionModel")(self.config)
        )
        context.weigh_component("tower", tower, "vision_model.", KIND)
        finish(tower, context)
        every = grids * context.cell.batch
        counts = [self.count(grid) for grid in every]
        device, most = context.device, self.config.max_num_tiles
        shapes = torch.tensor([[self.shapes.index(grid.tiles or (1, 1)) + 1] for grid in every])
        there = [[[int(tile < count) for tile in range(most)]] for count in counts]
        shapes = context.keep(shapes.view(-1, 1).to(device))
        mask = context.keep(torch.tensor(there).view(-1, 1, most).to(device))
        wide = self.config.vision_output_dim
        projector = context.create(lambda: nn.Linear(wide, self.hidden, bias=True))
        context.weigh_component("adapter", projector, "multi_modal_projector.", KIND)
        return Tiles(tower, shapes, mask, counts), projector

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        return (self._grid(*self.eye.canvas(width, height)),)

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        """Tiles of all images, padded, [images, tiles, 3, edge, edge]."""
        from transformers.models.mllama import image_processing_pil_mllama as module

        edge = self.eye.image_size
        processor = module.MllamaImageProcessorPil(
            size={"height": edge, "width": edge}, max_image_tiles=self.eye.max_tiles
        )
        pixels = (processor(i, return_tensors="pt")["pixel_values"][0] for i in images)
        return torch.cat([*pixels])

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        edge = first(self.config.image_size)
        return batch * len(grids), self.config.max_num_tiles, self.config.num_channels, edge, edge

    @property
    def _rows(self) -> int:
        """Rows of an image in the tower, padding among them."""
        return int(self.config.max_num_tiles * (-(-self.tile_rows // EIGHT) * EIGHT))

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        """The patch embedding; and the mask, an outer product of which no backward has any."""
        pixels = self.config.num_channels * first(self.config.patch_size) ** 2
        patches = self.config.max_num_tiles * (self.tile_rows - 1)
        embedded = 2 * patches * pixels * self.config.hidden_size
        return len(grids) * (embedded + 2 * 2 * self._rows**2)

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        config, rows = self.config, self._rows
        width = config.hidden_size
        row = 2 * (4 * width**2 + 2 * width * config.intermediate_size) + 4 * rows * width
        layers = config.num_hidden_layers + config.num_global_layers
        mask = 2 * rows**2
        return self.patch_flops(grids) + len(grids) * (layers * rows * row - mask)

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return self.adapter_flops(grids)

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        tokens = sum(map(self.tokens, grids))
        return 2 * tokens * self.hidden * self.config.vision_output_dim


TOWERS.add("mllama", Mllama)
