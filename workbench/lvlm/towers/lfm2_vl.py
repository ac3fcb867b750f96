"""LFM2-VL's tower and adapter: SigLIP 2 for any shape, and a projector of 2 × 2 patches side by
side.

transformers pads every image and tile to the patches of a whole tile, under a mask. Here those of
one size share a call, each with its own patches alone; a test holds the tower against
transformers' forward. The learnt square of positions is stretched to the shape of each.
Pixels of files are those of its processor, which needs torchvision, without it.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from math import isqrt
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import ANOTHER, TOWERS, Grid, Serves, Tower, finish, implementation
from workbench.lvlm.towers.resizing import about_zero, resize, tensor_of, tiles_of
from workbench.lvlm.towers.squares import check_projector, first
from workbench.visual.lfm2_vl import Lfm2VL as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

KIND = "siglip2_vision_model"


class Alike(NamedTuple):
    """Images of one size that follow each other: how many, and their rows and columns."""

    number: int
    rows: int
    columns: int

    @property
    def patches(self) -> int:
        """Of one of them."""
        return self.rows * self.columns


def alike(grids: Iterable[Grid]) -> list[Alike]:
    """Runs of images of one size."""
    sizes = groupby(grids, key=lambda grid: (grid.rows, grid.columns))
    return [Alike(len([*same]), *size) for size, same in sizes]


def by_size(call: Callable[[Tensor, Alike], Tensor], rows: Tensor, images: list[Alike]) -> Tensor:
    """What ``call`` makes of the rows of all images of a size at once, in the images' order.

    Tiles and whole images take turns, so that images of one size seldom follow each other.
    """
    runs = rows.split([run.number * run.patches for run in images])
    sizes: dict[tuple[int, int], list[int]] = {}
    for index, run in enumerate(images):
        sizes.setdefault((run.rows, run.columns), []).append(index)
    results = [*runs]
    for size, indices in sizes.items():
        numbers = [images[index].number for index in indices]
        joined = [runs[index] for index in indices]
        made = call(torch.cat(joined) if joined[1:] else joined[0], Alike(sum(numbers), *size))
        each = made.shape[0] // sum(numbers)
        parts = made.split([number * each for number in numbers])
        for index, part in zip(indices, parts, strict=True):
            results[index] = part
    return torch.cat(results)


class Blocks(nn.Module):
    """Patch embedding, positions, layers and the last norm, images of one size together."""

    def __init__(self, tower: Any, images: list[Alike]) -> None:
        super().__init__()
        self.tower, self.images = tower, images
        if tower.use_head:
            tower.head.requires_grad_(False)  # It feeds no token.

    def forward(self, pixels: Tensor) -> Tensor:
        """[patches, pixels of a patch] -> [patches, width]."""
        return by_size(self._encoded, pixels, self.images)

    def _encoded(self, pixels: Tensor, run: Alike) -> Tensor:
        embeddings = self.tower.embeddings
        hidden = embeddings.patch_embedding(pixels.unflatten(0, (run.number, run.patches)))
        side = embeddings.position_embedding_size
        hidden = hidden + embeddings.resize_positional_embeddings(
            embeddings.position_embedding.weight.unflatten(0, (side, side)),
            np.array([[run.rows, run.columns]]),
            max_length=run.patches,
        )
        for layer in self.tower.encoder.layers:
            hidden = layer(hidden, None)
        normed: Tensor = self.tower.post_layernorm(hidden)
        return normed.flatten(0, 1)


class Projector(nn.Module):
    """transformers' projector, for images of known sizes."""

    def __init__(self, projector: Any, images: list[Alike]) -> None:
        super().__init__()
        self.projector, self.images = projector, images

    def forward(self, features: Tensor) -> Tensor:
        """[patches, width] -> [tokens, D]."""
        return by_size(self._projected, features, self.images)

    def _projected(self, features: Tensor, run: Alike) -> Tensor:
        tokens: Tensor = self.projector(features.unflatten(0, run))
        return tokens.flatten(0, 2)


class Lfm2VL(Tower):
    """An image is itself, or its tiles and itself, all of which see their own patches alone."""

    serves: ClassVar[Serves] = {"lfm2_vl": (KIND,)}
    front_end = "lfm2-vl"
    without_adapter = ANOTHER
    merges = True

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        whole: Any = model.whole
        assert whole is not None, "chosen by its config"
        eye = self.own_front  # Settings that make no sense are said first.
        assert isinstance(eye, FrontEnd)
        check_projector(model.name, whole)
        self.whole, self.config, self.hidden = whole, whole.vision_config, model.config.hidden_size
        learnt = self.config.num_patches
        if isqrt(learnt) ** 2 != learnt:
            raise RequestError(
                f"model {model.name!r}: vision_config.num_patches {learnt}: a square number, for "
                "its learnt positions are those of a square"
            )
        self.merge = eye.merge
        self.patches_a_token = self.merge**2
        side = eye.tile_size // eye.patch_size
        self.image = Grid(1, side, side)

    @property
    def flags(self) -> list[str]:
        padded = (
            "tower: each image and tile runs its own patches; transformers pads them to those of "
            "a whole tile, under a mask"
        )
        head = "tower: the pooling head feeds no token and is held, not run; transformers runs it"
        return [padded, head] if self.config.vision_use_head else [padded]

    @property
    def eye(self) -> FrontEnd:
        """The front end with its tiles."""
        assert isinstance(self.front, FrontEnd)
        return self.front

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid.of(grid.rows // self.merge, grid.columns // self.merge)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        from transformers import Siglip2VisionModel
        from transformers.models.lfm2_vl.modeling_lfm2_vl import Lfm2VlMultiModalProjector

        self.config._attn_implementation = implementation(context)
        tower = context.create(lambda: Siglip2VisionModel(self.config))
        context.weigh_component("tower", tower, "vision_tower.", KIND)
        finish(tower, context)
        projector = context.create(lambda: Lfm2VlMultiModalProjector(self.whole))
        context.weigh_component("adapter", projector, "multi_modal_projector.", KIND)
        images = alike(grids * context.cell.batch)
        return Blocks(tower, images), Projector(projector, images)

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        columns, rows = self.eye.tiles(width, height)
        tiles = (rows, columns) if columns else None
        return tuple(Grid(1, *piece, tiles=tiles) for piece in self.eye.pieces(width, height))

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        """The patches of all images and tiles, [patches, pixels of a patch]."""
        patch = self.eye.patch_size
        pieces = (piece for image in images for piece in self._pieces(tensor_of(image)))
        rows = (tiles_of(about_zero(piece), patch).permute(0, 2, 3, 1) for piece in pieces)
        return torch.cat([patches.flatten(1) for patches in rows])

    def _pieces(self, picture: Tensor) -> Iterator[Tensor]:
        """uint8 [3, H, W] -> its tiles, and the whole of it, each uint8 [3, height, width]."""
        high, wide = picture.shape[1:]
        eye, tiles = self.eye, 0
        columns, rows = eye.tiles(wide, high)
        if columns:
            edge, tiles = eye.tile_size, rows * columns
            yield from tiles_of(resize(picture, rows * edge, columns * edge), edge)
        for height, width in eye.pieces(wide, high)[tiles:]:
            yield resize(picture, height * eye.patch_size, width * eye.patch_size)

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        patches = batch * sum(grid.patches for grid in grids)
        return patches, self.config.num_channels * first(self.config.patch_size) ** 2

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        (patches, values), width = self.pixels(1, grids), self.config.hidden_size
        return 2 * patches * values * width

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        width, mlp = self.config.hidden_size, self.config.intermediate_size
        patches = sum(grid.patches for grid in grids)
        pairs = sum(grid.patches**2 for grid in grids)
        layer = 2 * patches * (4 * width**2 + 2 * width * mlp) + 4 * pairs * width
        return self.patch_flops(grids) + self.config.num_hidden_layers * layer

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        if self.whole.projector_use_layernorm:
            return 0
        return 2 * sum(map(self.tokens, grids)) * self._wide * self.whole.projector_hidden_size

    @property
    def _wide(self) -> int:
        return int(self.patches_a_token * self.config.hidden_size)

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        tokens = sum(map(self.tokens, grids))
        return 2 * tokens * self.whole.projector_hidden_size * (self._wide + self.hidden)


TOWERS.add("lfm2_vl", Lfm2VL)
