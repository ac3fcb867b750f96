"""MiniCPM-V's tower and merger: SigLIP of any size, whose patches are merged 2 × 2 inside of it.

After one of its first layers the four patches of a window attend to each other and become one; the
layers behind run on a quarter of the rows. The merger then makes a token of 2 × 2 of these: 4 × 4
patches. In the mode 4x the first merging is left out, and feeds nothing. Positions count tokens.

transformers runs the attention of every image and slice as a call of its own; here those of one
size that follow each other share a call, and a test holds the tower against its forward.
"""

from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import MERGED, TOWERS, Grid, Serves, Tower, finish, implementation
from workbench.lvlm.towers.qwen_vl import indices
from workbench.lvlm.towers.squares import first
from workbench.visual.minicpm_v import MiniCPMV as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

PREFIXES = {
    "minicpmv4_6": "MiniCPMV4_6",
    "minicpmv4_7": "MiniCPMV4_7",
    "minicpm_ocr": "MiniCPMOcr",
}
WINDOW = 2
"""Patches a side of a window."""


class Alike(NamedTuple):
    """Images of one size that follow each other: how many, and their rows and columns."""

    number: int
    rows: int
    columns: int

    @property
    def patches(self) -> int:
        """Of one of them."""
        return self.rows * self.columns

    def merged(self) -> "Alike":
        """The same after 2 × 2 of them became one."""
        return Alike(self.number, self.rows // WINDOW, self.columns // WINDOW)


def alike(grids: Iterable[Grid]) -> list[Alike]:
    """Runs of images of one size."""
    sizes = groupby(grids, key=lambda grid: (grid.rows, grid.columns))
    return [Alike(len([*same]), *size) for size, same in sizes]


def by_size(grids: Sequence[Grid]) -> list[int]:
    """The indices of the images, those of one size after each other, first come first.

    Whole images and slices take turns, so that images of one size seldom follow each other.
    """
    sizes: dict[tuple[int, int], list[int]] = {}
    for index, grid in enumerate(grids):
        sizes.setdefault((grid.rows, grid.columns), []).append(index)
    return [index for same in sizes.values() for index in same]


def reorder(rows: Tensor, lengths: list[int], order: list[int]) -> Tensor:
    """The rows of images of those lengths, [rows, width], with the images in another order."""
    if order == [*range(len(order))]:
        return rows
    pieces = rows.split(lengths)
    return torch.cat([pieces[index] for index in order])


class GroupedAttention(nn.Module):
    """transformers' own attention, images of one size in one call."""

    def __init__(self, inner: Any, images: list[tuple[int, int]], eager: Any) -> None:
        """``images`` are runs of so many of so many rows, ``eager`` is transformers' function."""
        super().__init__()
        self.inner, self.images, self.eager = inner, images, eager

    def forward(self, hidden_states: Tensor, **_: object) -> tuple[Tensor, None]:
        """[1, rows, width] -> [1, rows, width], and no scores."""
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        inner = self.inner
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            inner.config._attn_implementation, self.eager
        )
        qkv = [
            project(hidden_states)[0].unflatten(-1, (inner.num_heads, -1))
            for project in (inner.q_proj, inner.k_proj, inner.v_proj)
        ]
        runs = zip(*(x.split([n * rows for n, rows in self.images]) for x in qkv), strict=True)
        attended = []
        for (number, rows), run in zip(self.images, runs, strict=True):
            out, _scores = attend(
                inner,
                *(x.unflatten(0, (number, rows)).transpose(1, 2) for x in run),
                attention_mask=None,
                scaling=inner.scaling,
                dropout=0.0,
                is_causal=False,
            )
            attended.append(out.reshape(number * rows, -1))
        return inner.out_proj(torch.cat(attended))[None], None


class Blocks(nn.Module):
    """Patch embedding, positions, layers and the merging of windows between them."""

    def __init__(
        self,
        tower: Any,
        places: Tensor,
        merge_after: int | None,
        lengths: list[int],
        order: list[int],
    ) -> None:
        """``lengths`` are of the images as they stand, ``order`` is the one in which they run."""
        super().__init__()
        self.tower, self.places, self.merge_after = tower, places, merge_after
        self.lengths, self.order = lengths, order

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, C, side of a patch, patches × side] -> [1, rows, width]."""
        embeddings = self.tower.embeddings
        hidden: Tensor = embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        hidden = reorder(hidden.flatten(0, 1), self.lengths, self.order)[None]
        hidden = hidden + embeddings.position_embedding(self.places)[None]
        for index, layer in enumerate(self.tower.encoder.layers):
            hidden = layer(hidden, attention_mask=None)
            if index == self.merge_after:
                hidden = self.tower.vit_merger(hidden, None)
        normed: Tensor = self.tower.post_layernorm(hidden)
        return normed


class Merger(nn.Module):
    """transformers' merger: 2 × 2 rows side by side through two layers."""

    def __init__(self, merger: Any, images: list[Alike], order: list[int]) -> None:
        """``order`` is the one in which the images run; their tokens stand as the images do."""
        super().__init__()
        self.mlp, self.images = merger.mlp[0], images
        lengths = [run.patches // WINDOW**2 for run in images for _ in range(run.number)]
        self.lengths, self.back = lengths, sorted(range(len(order)), key=order.__getitem__)

    def forward(self, features: Tensor) -> Tensor:
        """[1, rows, width] -> [tokens, D]."""
        runs = features[0].split([run.number * run.patches for run in self.images])
        merged = (self._merged(rows, run) for rows, run in zip(runs, self.images, strict=True))
        return reorder(torch.cat([*merged]), self.lengths, self.back)

    def _merged(self, rows: Tensor, run: Alike) -> Tensor:
        number, high, wide = run.merged()
        squares = rows.view(number, high, WINDOW, wide, WINDOW, -1).transpose(2, 3)
        merged: Tensor = self.mlp(squares.reshape(number * high * wide, -1))
        return merged


class MiniCPMV(Tower):
    """An image is itself and its slices, all of which see their own patches alone."""

    serves: ClassVar[Serves] = {"minicpmv4_6": ("minicpmv4_6_vision",)}
    unlisted: ClassVar[tuple[str, str] | None] = (
        "transformers.models.minicpmv4_6.modeling_minicpmv4_6",
        "MiniCPMV4_6VisionModel",
    )
    front_end = "minicpm-v"
    without_adapter = MERGED
    merges = True

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        whole: Any = model.whole
        assert whole is not None, "chosen by its config"
        eye = self.own_front  # Settings that make no sense are said first.
        assert isinstance(eye, FrontEnd)
        self.whole, self.config = whole, whole.vision_config
        self.kind, self.hidden = whole.model_type, model.config.hidden_size
        self.depth = self.config.num_hidden_layers
        self._check(model.name)
        self.side = eye.merged
        """Patches a side of a token."""
        self.patches_a_token = self.side**2
        self.merge_after = whole.insert_layer_id if self.side > WINDOW else None
        side = eye.scale // (eye.patch_size * self.side) * self.side
        self.image = Grid(1, max(side, self.side), max(side, self.side))

    def _check(self, name: str) -> None:
        """Raise RequestError for a merging that its processor does not count."""
        counted = {"merge_kernel_size": [2, 2], "merger_times": 1, "drop_vision_last_layer": False}
        fields = [
            (field, getattr(self.whole, field, only), only) for field, only in counted.items()
        ]
        window = self.config.window_kernel_size
        for field, value, only in [*fields, ("vision_config.window_kernel_size", window, [2, 2])]:
            if (list(value) if isinstance(value, (list, tuple)) else value) != only:
                raise RequestError(
                    f"model {name!r}: {field} {value!r:.60}: {only!r}, by which its processor "
                    "counts and transformers' class runs"
                )
        layer = self.whole.insert_layer_id
        if not isinstance(layer, int) or not 0 <= layer < self.depth:
            raise RequestError(
                f"model {name!r}: insert_layer_id {layer!r:.60}: a layer of its tower, 0 to "
                f"{self.depth - 1}"
            )

    @property
    def eye(self) -> FrontEnd:
        """The front end with its slices."""
        assert isinstance(self.front, FrontEnd)
        return self.front

    def module(self) -> Any:
        """transformers' module of the model."""
        return import_module(f"transformers.models.{self.kind}.modeling_{self.kind}")

    def from_transformers(self, name: str) -> Any:
        """A class of that module."""
        return getattr(self.module(), f"{PREFIXES[self.kind]}{name}")

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid.of(grid.rows // self.side, grid.columns // self.side)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        self.config._attn_implementation = implementation(context)
        tower = context.create(lambda: self.from_transformers("VisionModel")(self.config))
        context.weigh_component("tower", tower, "vision_tower.", self.config.model_type)
        finish(tower, context)
        merger = context.create(lambda: self.from_transformers("Merger")(self.whole))
        context.weigh_component("adapter", merger, "merger.", self.config.model_type)
        every = grids * context.cell.batch
        lengths, order = [grid.patches for grid in every], by_size(every)
        run = [every[index] for index in order]
        images = self._group(tower, run, context)
        places = context.keep(indices(context, lambda: self._places(run), sum(lengths)))
        blocks = Blocks(tower, places, self.merge_after, lengths, order)
        return blocks, Merger(merger, images, order)

    def _group(self, tower: Any, grids: Sequence[Grid], context: "Context") -> list[Alike]:
        """Images of one size share a call of every attention; returns those of the last layer."""
        images, eager = alike(grids), self.module().eager_attention_forward
        for index, layer in enumerate(tower.encoder.layers):
            runs = [(run.number, run.patches) for run in images]
            layer.self_attn = GroupedAttention(layer.self_attn, runs, eager)
            if index == self.merge_after:
                self._window(tower.vit_merger, images, eager, context)
                images = [run.merged() for run in images]
        if self.merge_after is None:
            tower.vit_merger.requires_grad_(False)  # It feeds no token.
        return images

    def _window(self, merger: Any, images: list[Alike], eager: Any, context: "Context") -> None:
        """Give the merging of windows the places of their patches, which it would work out."""
        rows = sum(run.number * run.patches for run in images)
        windows = rows // WINDOW**2
        index = context.keep(indices(context, lambda: [*_windows(images)], rows))
        ends = torch.arange(windows + 1, dtype=torch.int32, device=context.device) * WINDOW**2
        order = index, context.keep(ends), WINDOW**2
        merger.get_window_index = lambda sizes, kwargs=None: order
        merger.self_attn = GroupedAttention(merger.self_attn, [(windows, WINDOW**2)], eager)

    def _places(self, grids: Sequence[Grid]) -> list[int]:
        """The learned position of every patch, the nearest of the square that is learned."""
        from transformers.vision_utils import get_vision_nearest_position_ids

        sizes = torch.tensor([grid[1:3] for grid in grids]).view(-1, 2)
        learned = first(self.config.image_size) // first(self.config.patch_size)
        places: list[int] = get_vision_nearest_position_ids(sizes, learned).tolist()
        return places

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        return self._grids(width, height, False)

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        """A frame is an image of its own, under the limits of frames."""
        return (self._grids(width, height, True),) * num_frames

    def _grids(self, width: int, height: int, video: bool) -> tuple[Grid, ...]:
        """The whole image, and slices, which say how many there are."""
        whole = Grid(1, *self.eye.whole(width, height, video))
        grid = self.eye.slices(width, height, video)
        if grid is None:
            return (whole,)
        piece = Grid(1, *self.eye.slice(width, height, grid, video), tiles=grid)
        return whole, *(piece,) * (grid[0] * grid[1])

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        """The patches of all images, [1, C, side of a patch, patches × side]."""
        from transformers.models.minicpmv4_6 import image_processing_pil_minicpmv4_6 as module

        scale, slices = self.eye.limits(bool(num_frames))
        processor = module.MiniCPMV4_6ImageProcessorPil(
            scale_resolution=scale,
            max_slice_nums=slices,
            patch_size=self.eye.patch_size,
            downsample_mode=self.eye.downsample,
        )
        batches = (processor(image, return_tensors="pt")["pixel_values"] for image in images)
        return torch.cat([*batches], -1)

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        side = first(self.config.patch_size)
        patches = sum(grid.patches for grid in grids)
        return batch, self.config.num_channels, side, patches * side

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        pixels = self.config.num_channels * first(self.config.patch_size) ** 2
        return 2 * sum(grid.patches for grid in grids) * self.config.hidden_size * pixels

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        width, mlp = self.config.hidden_size, self.config.intermediate_size

        def attention(patches: int, pairs: int) -> int:
            return 8 * patches * width**2 + 4 * pairs * width

        images, total = alike(grids), self.patch_flops(grids)
        for index in range(self.depth):
            patches = sum(run.number * run.patches for run in images)
            pairs = sum(run.number * run.patches**2 for run in images)
            total += attention(patches, pairs) + 4 * patches * width * mlp
            if index == self.merge_after:
                wide = WINDOW**2 * mlp
                total += attention(patches, WINDOW**2 * patches)
                total += 2 * patches // WINDOW**2 * wide * (WINDOW**2 * width + width)
                images = [run.merged() for run in images]
        return total

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        wide = WINDOW**2 * self.config.hidden_size
        return 2 * sum(map(self.tokens, grids)) * wide * (wide + self.hidden)


def _windows(images: list[Alike]) -> Iterator[int]:
    """The patches of every window, window by window."""
    start = 0
    for number, rows, columns in images:
        for _ in range(number):
            yield from (
                start + (top + row) * columns + left + column
                for top in range(0, rows, WINDOW)
                for left in range(0, columns, WINDOW)
                for row in range(WINDOW)
                for column in range(WINDOW)
            )
            start += rows * columns


TOWERS.add("minicpmv4_6", MiniCPMV)
