"""LLaVA-NeXT's tower and adapter: a base view and tiles of any resolution through CLIP or SigLIP.

Of SigLIP, Granite Vision takes several layers' hidden states side by side.

The projector runs on every row of every tile. Then the tiles of an image are put together, its
padding is cut off and a learnt newline ends each row; the base view comes first.
"""

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.llava import Llava
from workbench.visual.llava_next import LlavaNext as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved


class Newline(nn.Module):
    """The embedding that ends a row of tokens, under the name that checkpoints give it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image_newline = nn.Parameter(torch.empty(width))


class Packer(nn.Module):
    """Features of all squares to the tokens of all images."""

    def __init__(
        self, projector: nn.Module, newline: Newline, tower: "LlavaNext", grids: tuple[Grid, ...]
    ) -> None:
        super().__init__()
        self.projector, self.newline = projector, newline
        self.side, self.front, self.grids = tower.token_side, tower.eye, grids
        self.squares = [tower.squares(grid) for grid in grids]

    def forward(self, features: Tensor) -> Tensor:
        """[squares, rows, width] -> [tokens, D]."""
        return self.packed(self.projector(features))

    def packed(self, projected: Tensor) -> Tensor:
        """[squares, rows, D] -> [tokens, D]."""
        pairs = zip(projected.split(self.squares), self.grids, strict=True)
        return torch.cat([self.pack(views, grid) for views, grid in pairs])

    def pack(self, views: Tensor, grid: Grid) -> Tensor:
        """The tokens of one image, [squares, rows, D] -> [n, D], in transformers' own steps."""
        newline, side = self.newline.image_newline, self.side
        if grid.tiles is None:
            return torch.cat((views[0], newline[None]))
        tiles = views[1:].view(*grid.tiles, side, side, -1).permute(4, 0, 2, 1, 3).contiguous()
        picture = tiles.flatten(1, 2).flatten(2, 3)
        above, before = ((n * side - m) // 2 for n, m in zip(grid.tiles, grid[1:3], strict=True))
        picture = picture[:, above : above + grid.rows, before : before + grid.columns]
        picture = self.scaled(picture, *self.front.kept(grid.rows, grid.columns))
        ends = newline[:, None, None].expand(*picture.shape[:-1], 1)
        rows = torch.cat((picture, ends), -1).flatten(1, 2).transpose(0, 1)
        return torch.cat((views[0], rows))

    def scaled(self, picture: Tensor, rows: int, columns: int) -> Tensor:
        """[D, h, w] -> [D, rows, columns], where these are fewer."""
        if picture.shape[1:] == (rows, columns):
            return picture
        return nn.functional.interpolate(picture[None], [rows, columns], mode="bilinear")[0]


class LlavaNext(Llava):
    """A grid has the patches of an image without padding, and the tiles that they lie in."""

    serves: ClassVar[Serves] = {"llava_next": ("clip_vision_model", "siglip_vision_model")}
    front_end = "llava-next"
    merges = True
    several = True
    packer: type[Packer] = Packer

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        if self.side**2 + self.class_token - self.dropped != self.side**2:
            raise RequestError(
                f"model {self.name!r}: vision_feature_select_strategy "
                f"{self.whole.vision_feature_select_strategy!r:.60}: the tiles of "
                f"{self.front_end} are whole squares of patches"
            )

    @property
    def token_side(self) -> int:
        """Tokens a side of a tile."""
        return self.side

    @property
    def eye(self) -> FrontEnd:
        """The front end with its grids."""
        assert isinstance(self.front, FrontEnd)
        return self.front

    @cached_property
    def image(self) -> Grid:  # type: ignore[override]
        """The smallest square of the grids, without padding; else the smallest of all."""
        height, width = min(self.eye.pinpoints, key=lambda s: (s[0] != s[1], s[0] * s[1]))
        return self.of_image(width, height)[0]

    def squares(self, grid: Grid) -> int:
        return grid.steps if grid.tiles is None else 1 + grid.tiles[0] * grid.tiles[1]

    def tokens(self, grid: Grid) -> int:
        if grid.tiles is None:
            return self.token_side**2 + 1
        rows, columns = self.eye.kept(grid.rows, grid.columns)
        return self.token_side**2 + rows * (columns + 1)

    def token_grids(self, grids: Iterable[Grid]) -> tuple[TokenGrid, ...]:
        # With its base view and newlines an image has no rows.
        return tuple(TokenGrid(self.tokens(grid)) for grid in grids)

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        rows, columns = self.eye.patches(width, height)
        return (Grid(1, rows, columns, None, self.eye.tiles(width, height)),)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        tower, projector = super().build(context, grids, adapter)
        assert projector is not None, "Llava's has one"
        newline = context.create(lambda: Newline(self.hidden))
        context.weigh_component("newline", newline, "", self.config.model_type)
        return tower, self.packer(projector, newline, self, grids * context.cell.batch)

    def processor(self, frames: bool = False) -> Any:
        from transformers.models.llava_next import image_processing_pil_llava_next as module

        side = self.eye.image_size
        return module.LlavaNextImageProcessorPil(
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            image_grid_pinpoints=[list(pair) for pair in self.eye.pinpoints],
            **({} if self.class_token else {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}),
        )

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        rows = self._squares(grids) * self.side**2
        return 2 * rows * self.hidden * self.feature_width

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        rows = self._squares(grids) * self.side**2
        return 2 * rows * self.hidden * (self.feature_width + self.hidden)


TOWERS.add("llava_next", LlavaNext)
