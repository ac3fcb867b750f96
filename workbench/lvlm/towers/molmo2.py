"""Molmo 2's tower and adapter: two layers' features of each patch, pooled to a token by attention.

The whole image comes first, then its crops, whose shared patches are taken of one crop alone. A
token's query is the mean of the patches of its window, which are its keys and values. What comes
out is added to the embedding of the token in whose place it stands, a row that all share. Pixels
of files are those of its processor, which needs torchvision, without it.
"""

from collections.abc import Iterable
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.lvlm.configs.fields import TOWER_SIZES
from workbench.lvlm.kernels.modelled import tracing
from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import ANOTHER, TOWERS, Grid, Serves, finish, implementation
from workbench.lvlm.towers.resizing import tensor_of
from workbench.lvlm.towers.squares import Squares
from workbench.visual.molmo2 import Molmo2 as FrontEnd
from workbench.visual.molmo2 import section_of
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

KIND = "molmo2_vision"


class Layers(nn.Module):
    """The hidden states of some layers of a tower side by side."""

    def __init__(self, tower: Any, chosen: tuple[int, ...]) -> None:
        super().__init__()
        self.tower, self.chosen = tower, chosen
        depth = max(chosen) + 1
        self.run = nn.ModuleList([*tower.layers][:depth])
        for layer in [*tower.layers][depth:]:
            layer.requires_grad_(False)  # They feed no token.

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, patches, pixels of a patch] -> [N, patches, width · layers]."""
        hidden = self.tower.patch_embedding(pixels) + self.tower.positional_embedding
        states = []
        for layer in self.run:
            hidden = layer(hidden, None)
            states.append(hidden)
        return torch.cat([states[index] for index in self.chosen], -1)


class Pooler(nn.Module):
    """A token for each window of patches, by transformers' own modules.

    ``windows`` [tokens, n] are indices of patches, ``shares`` [tokens, n, 1] 1 where there is a
    patch, ``mask`` the same for scores, None where there is one everywhere.
    """

    def __init__(self, adapter: Any, windows: Tensor, shares: Tensor, mask: Tensor | None) -> None:
        super().__init__()
        self.attention, self.projector = adapter.image_pooling_2d, adapter.image_projector
        self.windows, self.shares, self.mask = windows, shares, mask

    def forward(self, features: Tensor) -> Tensor:
        """[N, patches, W] -> [tokens, D]."""
        patches = features.flatten(0, 1)[self.windows] * self.shares
        query = patches.sum(1, keepdim=True) / self.shares.sum(1, keepdim=True)
        pooled, _ = self.attention(query, patches, attention_mask=self.mask)
        projected: Tensor = self.projector(pooled.squeeze(1))
        return projected


class Molmo2(Squares):
    """A grid has an image's patches without shared ones and its crops; a frame has no crops."""

    serves: ClassVar[Serves] = {"molmo2": (KIND,)}
    unlisted = ("transformers.models.molmo2.modeling_molmo2", "Molmo2VisionModel")
    front_end = "molmo2"
    without_adapter = ANOTHER
    merges = True

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        whole: Any = model.whole
        assert whole is not None, "chosen by its config"
        eye = self.own_front  # Settings that make no sense are said first.
        assert isinstance(eye, FrontEnd)
        self.eye, self.family, self.hidden = eye, model.family, model.config.hidden_size
        self.config, self.pooling = whole.vision_config, whole.adapter_config
        layers = self.config.num_hidden_layers
        self.chosen = tuple(n % layers for n in self.pooling.vision_feature_layer)
        self.added_token = whole.image_patch_id
        self._check(whole.image_patch_id)
        self.image = self.of_image(eye.image_size, eye.image_size)[0]
        self.frame = Grid(1, self.side, self.side)

    def _check(self, token: int) -> None:
        """Raise RequestError, one line, where its sizes do not go together."""
        stated = section_of(self.model.stated)
        # transformers leaves out the layers of the hub's form that feed no token.
        for field in sorted({*TOWER_SIZES} - {"num_hidden_layers"}):
            self._same(f"its tower's {field}", stated.get(field), getattr(self.config, field, 0))
        width, hidden = self.pooling.hidden_size, self.pooling.text_hidden_size
        self._same("adapter_config.hidden_size", width, self.config.hidden_size)
        self._same("adapter_config.text_hidden_size", hidden, self.hidden)
        places = self.config.num_position_embeddings
        self._same("num_position_embeddings", places, self.side**2)
        rows = self.family.embedded(self.model.config)
        if not 0 <= token < rows:
            raise RequestError(
                f"model {self.model.name!r}: image_patch_id {token}: the embedding has {rows} rows"
            )

    def _same(self, field: str, stated: Any, built: Any) -> None:
        if stated is not None and stated != built:
            raise RequestError(
                f"model {self.model.name!r}: {field} {stated!r:.60}: what is built beside it has "
                f"{built!r:.60}"
            )

    @property
    def flags(self) -> list[str]:
        idle = self.config.num_hidden_layers - max(self.chosen) - 1
        if not idle:
            return []
        return [f"tower: the last {idle} of its layers feed no token and are held, not run"]

    @property
    def side(self) -> int:
        return self.eye.side

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        rows, columns = crops = self.eye.crops(width, height)
        return (Grid(1, self.eye.patches(rows), self.eye.patches(columns), tiles=crops),)

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        return ((self.frame,),) * num_frames

    def views(self, grid: Grid) -> list[tuple[int, int]]:
        """Rows and columns of tokens of the whole image, then of its crops; or of a frame."""
        if grid.tiles is None:
            return [(ceil(self.side / self.eye.frame_pool),) * 2] * grid.steps
        pool = self.eye.pool
        return [(ceil(self.side / pool),) * 2, (ceil(grid.rows / pool), ceil(grid.columns / pool))]

    def tokens(self, grid: Grid) -> int:
        return sum(rows * columns for rows, columns in self.views(grid))

    def token_grids(self, grids: Iterable[Grid]) -> tuple[TokenGrid, ...]:
        # With the whole of it before its crops an image has no rows.
        return tuple(
            TokenGrid.of(*self.views(grid)[0])
            if grid.tiles is None
            else TokenGrid(self.tokens(grid))
            for grid in grids
        )

    def squares(self, grid: Grid) -> int:
        return grid.steps if grid.tiles is None else 1 + grid.tiles[0] * grid.tiles[1]

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        pixels = self.config.num_channels * self.config.patch_size**2
        return batch * self._squares(grids), self.side**2, pixels

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        kind = implementation(context)
        self.config._attn_implementation = self.pooling._attn_implementation = kind
        tower, pooler = self.family.from_transformers, "Molmo2Adapter"
        visual = context.create(lambda: tower("Molmo2VisionModel")(self.config))
        made = context.create(lambda: self.family.from_transformers(pooler)(self.pooling))
        context.weigh_component("tower", visual, "vision_tower.", KIND)
        context.weigh_component("adapter", made, "multi_modal_projector.", KIND)
        finish(visual, context)
        made.train(context.cell.pass_ == "train")
        windows = context.keep(self._windows(context, grids * context.cell.batch))
        shares = context.keep((windows >= 0).to(context.dtype).unsqueeze(-1))
        mask = self._mask(context, shares, grids)
        return Layers(visual, self.chosen), Pooler(made, windows.clamp_(min=0), shares, mask)

    def _windows(self, context: "Context", grids: tuple[Grid, ...]) -> Tensor:
        """Of every token the patches of its window among those of all crops, -1 where there is
        none, int64 [tokens, n]."""
        pool = self.eye.frame_pool if grids and grids[0].tiles is None else self.eye.pool
        if tracing(context.device):
            count = sum(map(self.tokens, grids))
            return torch.empty(count, pool**2, dtype=torch.int64, device=context.device)
        views, first = [torch.zeros(0, pool**2, dtype=torch.int64)], 0
        for grid in grids:
            each = self.side**2
            whole = torch.arange(each).unflatten(0, (self.side, self.side))
            views += [pooled(first + n * each + whole, pool) for n in range(grid.steps)]
            if grid.tiles is not None:
                views.append(pooled(first + each + self.without_shared(grid.tiles), pool))
            first += each * self.squares(grid)
        return torch.cat(views).to(context.device)

    def without_shared(self, tiles: tuple[int, int]) -> Tensor:
        """The patch of a crop at every place of the canvas, int64 [rows, columns]."""
        (row, down), (column, across) = map(self._owners, tiles)
        crop = row[:, None] * tiles[1] + column
        return (crop * self.side + down[:, None]) * self.side + across

    def _owners(self, count: int) -> tuple[Tensor, Tensor]:
        """Along one side of so many crops: whose each patch is, and its place in that crop."""
        before, behind = self.eye.margin_before, self.eye.margin_behind
        owners, places = [], []
        for crop in range(count):
            first = before if crop else 0
            last = self.side - (behind if crop < count - 1 else 0)
            owners.append(torch.full((last - first,), crop))
            places.append(torch.arange(first, last))
        return torch.cat(owners), torch.cat(places)

    def _mask(self, context: "Context", shares: Tensor, grids: tuple[Grid, ...]) -> Tensor | None:
        """What scores get, [tokens, 1, 1, n], in the form that transformers' attention takes."""
        sides = {n for grid in grids for n in (self.side, grid.rows, grid.columns)}
        pool = self.eye.frame_pool if grids and grids[0].tiles is None else self.eye.pool
        if not any(side % pool for side in sides):
            return None
        there = shares.view(shares.shape[0], 1, 1, -1)
        if self.pooling._attn_implementation != "eager":
            return context.keep(there.bool())
        return context.keep((1 - there) * torch.finfo(context.dtype).min)

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        views = []
        for image in images:
            pixels = tensor_of(image)[None].float()
            views.append(self._resized(pixels, 1, 1))
            if not num_frames:
                crops = self.eye.crops(image.width, image.height)
                views.append(self._resized(pixels, *crops, True))
        return torch.cat(views)

    def _resized(self, pixels: Tensor, rows: int, columns: int, crops: bool = False) -> Tensor:
        """[1, 3, H, W] in 0 to 255 -> [squares, patches, pixels of a patch] about 0."""
        from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD

        patch, edge = self.eye.patch_size, self.eye.side * self.eye.patch_size
        size = self.eye.image_size, self.eye.image_size
        if crops:
            size = self.eye.patches(rows) * patch, self.eye.patches(columns) * patch
        scaled = F.interpolate(pixels, size, mode="bilinear", align_corners=False)
        mean, std = (
            torch.tensor(values).view(3, 1, 1) * 255
            for values in (IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD)
        )
        scaled = (scaled.round().clamp(0, 255) - mean) / std
        step = self.eye.window * patch
        tiles = scaled[0].unfold(1, edge, step).unfold(2, edge, step)  # [3, rows, columns, E, E]
        patches = tiles.unfold(3, patch, patch).unfold(4, patch, patch)
        return patches.permute(1, 2, 3, 4, 5, 6, 0).flatten(4).flatten(2, 3).flatten(0, 1)

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        squares, rows, pixels = self.pixels(1, grids)
        return 2 * squares * rows * pixels * self.config.hidden_size

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        config, rows = self.config, self.side**2
        width, queries = config.hidden_size, config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        row = 4 * width * (queries + keys + config.intermediate_size) + 4 * rows * queries
        depth = max(self.chosen) + 1
        return self.patch_flops(grids) + depth * self._squares(grids) * rows * row

    def _pooled(self, grids: tuple[Grid, ...]) -> tuple[int, int]:
        """Tokens, and patches of their windows, padding among them."""
        tokens = sum(map(self.tokens, grids))
        pool = self.eye.frame_pool if grids and grids[0].tiles is None else self.eye.pool
        return tokens, tokens * pool**2

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        config, (tokens, patches) = self.pooling, self._pooled(grids)
        width = config.hidden_size * len(self.chosen)
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        return 2 * width * (tokens * queries + 2 * patches * keys)

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        config, (tokens, patches) = self.pooling, self._pooled(grids)
        queries = config.num_attention_heads * config.head_dim
        attention = 4 * patches * queries + 2 * tokens * queries * config.hidden_size
        wide = 2 * config.hidden_size + config.text_hidden_size
        mlp = 2 * tokens * config.intermediate_size * wide
        return self.entry_flops(grids) + attention + mlp


def pooled(places: Tensor, pool: int) -> Tensor:
    """[rows, columns] -> [tokens, pool²]: windows of a grid that padding of -1 fills up, half of
    it, rounded down, before the grid."""
    sides = [pool * -(-side // pool) - side for side in places.shape]
    before = [side // 2 for side in sides]
    ends = (before[1], sides[1] - before[1], before[0], sides[0] - before[0])
    padded = F.pad(places, ends, value=-1)
    windows = padded.unfold(0, pool, pool).unfold(1, pool, pool)
    return windows.flatten(2).flatten(0, 1)


TOWERS.add("molmo2", Molmo2)
