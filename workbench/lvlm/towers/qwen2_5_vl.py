"""Qwen2.5-VL's own tower: native resolution, window attention, 2 × 2 patches merged to a token.

transformers runs the attention of every window as a call of its own: thousands a layer for a
video. Here windows of one size, and frames that are alike, share a call; a test holds the tower
against transformers' forward.
"""

from collections.abc import Callable, Iterator
from itertools import groupby, islice
from math import isqrt
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from workbench.errors import RequestError, Unsupported
from workbench.lvlm.kernels.modelled import tracing
from workbench.lvlm.layout import Layout
from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import (
    TOWERS,
    Grid,
    Serves,
    Tower,
    finish,
    implementation,
    vision_config,
)
from workbench.vision.qwen2_5_vl import MAX_RATIO
from workbench.vision.qwen2_5_vl import Qwen25VL as FrontEnd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

MODEL_TYPE = "qwen2_5_vl_vision"
PUBLISHED = {
    "depth": 32,
    "hidden_size": 1280,
    "hidden_act": "silu",
    "intermediate_size": 3420,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "tokens_per_second": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
"""vision_config of config.json of Qwen/Qwen2.5-VL-7B-Instruct."""
SIDE = 32
"""Tokens a side of the image that stands for |V|: 896 × 896 pixels, 1,024 tokens."""


class Windows(NamedTuple):
    """``number`` windows of ``length`` patches, the first at patch ``start`` of a frame."""

    start: int
    number: int
    length: int


class Frames(NamedTuple):
    """Frames that are alike and follow each other: how many, their patches and windows."""

    number: int
    patches: int
    windows: tuple[Windows, ...]


class GroupedAttention(nn.Module):
    """transformers' own vision attention, windows of one size in one call."""

    def __init__(self, inner: Any, frames: list[Frames], whole: bool) -> None:
        super().__init__()
        self.inner, self.frames, self.whole = inner, frames, whole

    def forward(
        self, hidden: Tensor, *, position_embeddings: tuple[Tensor, Tensor], **_: object
    ) -> Tensor:
        """[patches, width] -> [patches, width]; tables are [patches, head size]."""
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

        qkv = self.inner.qkv(hidden).unflatten(1, (3, self.inner.num_heads, -1))
        q, k, v = qkv.unbind(1)
        q, k = apply_rotary_pos_emb_vision(q, k, *position_embeddings)
        out, start = [], 0
        for run in self.frames:
            rows = slice(start, start + run.number * run.patches)
            of_run = [x[rows].unflatten(0, (run.number, run.patches)) for x in (q, k, v)]
            out.append(torch.cat([*self._attend(run, of_run)], 1).flatten(0, 1))
            start = rows.stop
        return self.inner.proj(torch.cat(out).flatten(1))

    def _attend(self, run: Frames, qkv: list[Tensor]) -> Iterator[Tensor]:
        """The windows of a run of frames: [frames, patches of these windows, heads, K]."""
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import eager_attention_forward

        name = self.inner.config._attn_implementation
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention_forward)
        windows = (Windows(0, 1, run.patches),) if self.whole else run.windows
        for start, count, length in windows:
            q, k, v = (
                x[:, start : start + count * length].reshape(-1, length, *x.shape[2:]) for x in qkv
            )
            found, _ = attend(
                self.inner,
                *(x.transpose(1, 2) for x in (q, k, v)),
                attention_mask=None,
                scaling=self.inner.scaling,
                dropout=0.0,
                is_causal=False,
            )
            yield found.reshape(run.number, count * length, *found.shape[2:])


class Blocks(nn.Module):
    """Patch embedding and blocks, over patches in the order of their windows."""

    def __init__(self, visual: Any, order: Tensor, tables: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.patch_embed, self.blocks = visual.patch_embed, visual.blocks
        self.order, self.tables = order, tables

    def forward(self, pixels: Tensor) -> Tensor:
        """[patches, pixels of a patch] -> [patches, width], still in the order of the windows."""
        hidden = self.patch_embed(pixels)
        hidden = hidden.unflatten(0, (len(self.order), -1))[self.order].flatten(0, 1)
        for block in self.blocks:
            hidden = block(hidden, cu_seqlens=None, position_embeddings=self.tables)
        return hidden


class Merger(nn.Module):
    """The patch merger, which also restores the order of the tokens."""

    def __init__(self, merger: nn.Module, back: Tensor) -> None:
        super().__init__()
        self.merger, self.back = merger, back

    def forward(self, features: Tensor) -> Tensor:
        """[patches, width] -> [tokens, D]."""
        return self.merger(features)[self.back]


class Qwen25VL(Tower):
    """Images of any size in whole tokens of 28 × 28 pixels; video in steps of two frames."""

    serves: ClassVar[Serves] = {"qwen2_5_vl": ("qwen2_5_vl_vision",)}
    front_end = "qwen2.5-vl"
    merges = True
    has_positions = True

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        self.hidden = model.config.hidden_size
        self.family = model.family
        fields = vision_config(model, MODEL_TYPE, PUBLISHED) | {"out_hidden_size": self.hidden}
        self.config = self.family.part("Qwen2_5_VLVisionConfig", "configuration")(**fields)
        self.merge = self.config.spatial_merge_size
        self.patches_a_token = self.merge**2
        self.image = Grid(1, SIDE * self.merge, SIDE * self.merge)

    def grids(self, num_visual: int) -> tuple[Grid, ...]:
        """Images of 1,024 tokens; up to that, one image as nearly square as can be."""
        if num_visual == 0 or num_visual >= self.tokens_each:
            return super().grids(num_visual)
        found, least = self._single(num_visual), self._eye.min_tokens
        if found is None:
            sizes = [n for n in range(least, self.tokens_each + 1) if self._single(n)]
            near = [max((n for n in sizes if n < num_visual), default=0)]
            near += [min(n for n in sizes if n > num_visual)]
            raise RequestError(
                f"num_visual {num_visual}: qwen2.5-vl takes images of at least {least} "
                f"tokens, edges up to {MAX_RATIO} to 1; the nearest are {near[0]} and {near[1]}"
            )
        return (found,)

    def _single(self, tokens: int) -> Grid | None:
        rows = next(n for n in range(isqrt(tokens), 0, -1) if tokens % n == 0)
        columns = tokens // rows
        if tokens < self._eye.min_tokens or columns > MAX_RATIO * rows:
            return None
        return Grid(1, rows * self.merge, columns * self.merge)

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid.of(grid.rows // self.merge, grid.columns // self.merge)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        if not adapter:
            raise Unsupported(
                f"{context.cell.attention} keeps the width of SigLIP's features, but the tower "
                "of qwen2.5-vl merges its patches into the decoder's width"
            )
        self.config._attn_implementation = implementation(context)
        kind = self.family.part("Qwen2_5_VisionTransformerPretrainedModel")
        visual = context.create(lambda: kind(self.config))
        context.weigh_part("tower and adapter", visual, "visual.", MODEL_TYPE)
        finish(visual, context)
        batch = grids * context.cell.batch
        frames, patches = self.frames(batch), sum(grid.patches for grid in batch)
        where = _indices(context, lambda: self.order(batch), patches // self.patches_a_token)
        places = _indices(context, lambda: self.places(batch), patches, 2)
        like = torch.empty(0, dtype=context.dtype, device=context.device)
        rotary = type(visual.rotary_pos_emb)(self.config).to(context.device)
        tables = tuple(
            table.unflatten(0, (-1, self.patches_a_token))[where].flatten(0, 1)
            for table in rotary(like, places)
        )
        for index, block in enumerate(visual.blocks):
            whole = index in self.config.fullatt_block_indexes
            block.attn = GroupedAttention(block.attn, frames, whole)
        tower = Blocks(visual, where, (tables[0], tables[1]))
        merger = Merger(visual.merger, torch.argsort(where))
        for constant in (where, merger.back, *tables):
            context.keep(constant)
        return tower, merger

    def frames(self, grids: tuple[Grid, ...]) -> list[Frames]:
        """Runs of frames that are alike, with their windows grouped by size."""
        runs = []
        for (rows, columns), alike in groupby(grids, key=lambda grid: (grid.rows, grid.columns)):
            windows, start = [], 0
            for length, same in groupby(self._windows(rows, columns), key=len):
                count = len([*same])
                size = length * self.patches_a_token
                windows.append(Windows(start, count, size))
                start += count * size
            steps = sum(grid.steps for grid in alike)
            runs.append(Frames(steps, rows * columns, tuple(windows)))
        return runs

    def order(self, grids: tuple[Grid, ...]) -> list[int]:
        """Token indices in the order in which the tower sees them: window by window."""
        order: list[int] = []
        for grid in grids:
            inside = [i for window in self._windows(grid.rows, grid.columns) for i in window]
            for _ in range(grid.steps):
                first = len(order)
                order += [first + i for i in inside]
        return order

    def _windows(self, rows: int, columns: int) -> list[list[int]]:
        """The windows of a frame as token indices, windows of one size together."""
        high, wide = rows // self.merge, columns // self.merge
        side = self.config.window_size // self.merge // self.config.patch_size
        windows = [
            [r * wide + c
             for r in range(top, min(top + side, high))
             for c in range(left, min(left + side, wide))]
            for top in range(0, high, side)
            for left in range(0, wide, side)
        ]  # fmt: skip
        return sorted(windows, key=len, reverse=True)

    def places(self, grids: tuple[Grid, ...]) -> list[tuple[int, int]]:
        """Row and column of every patch, in the processor's order: token by token."""
        m, found = self.merge, []
        for grid in grids:
            frame = [
                (top + r, left + c)
                for top in range(0, grid.rows, m)
                for left in range(0, grid.columns, m)
                for r in range(m)
                for c in range(m)
            ]
            found += frame * grid.steps
        return found

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        return (self._grid(*self._eye.resized(width, height)),)

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        """The whole video as one: pairs of frames are a step."""
        wide, high = self._eye.resized_frame(width, height, num_frames)
        frame, together = self._grid(wide, high), self.config.temporal_patch_size
        steps = self._eye.steps(num_frames)
        return ((Grid(steps, frame.rows, frame.columns, together / fps),),)

    @property
    def _eye(self) -> FrontEnd:
        assert isinstance(self.front, FrontEnd)
        return self.front

    def _grid(self, wide: int, high: int) -> Grid:
        return Grid(1, high // self.config.patch_size, wide // self.config.patch_size)

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as module

        together, eye = self.config.temporal_patch_size, self._eye
        least, most = eye.min_pixels, eye.max_pixels
        if num_frames:
            least, most = eye.video_min_pixels, eye.most_of_frame(num_frames)
        processor = module.Qwen2VLImageProcessorPil(
            size={"shortest_edge": least, "longest_edge": most},
            patch_size=self.config.patch_size,
            temporal_patch_size=together,
            merge_size=self.merge,
        )
        shape = (self.config.in_channels, together, -1)
        # The processor repeats an image in time: [patches, C, time, pixels of a frame].
        stills = (
            processor(i, return_tensors="pt")["pixel_values"].unflatten(1, shape) for i in images
        )
        if not num_frames:
            return torch.cat([still.flatten(1) for still in stills])
        steps = []
        while pair := [*islice(stills, together)]:
            pair += [pair[-1]] * (together - len(pair))  # The last frame stands for what lacks.
            steps.append(torch.stack([still[:, :, 0] for still in pair], 2).flatten(1))
        return torch.cat(steps)

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        return batch * sum(grid.patches for grid in grids), self._pixels_a_patch

    @property
    def _pixels_a_patch(self) -> int:
        c = self.config
        return c.in_channels * c.temporal_patch_size * c.patch_size**2

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        patches = sum(grid.patches for grid in grids)
        return 2 * patches * self._pixels_a_patch * self.config.hidden_size

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        c, patches = self.config, sum(grid.patches for grid in grids)
        linear = 2 * (4 * c.hidden_size**2 + 3 * c.hidden_size * c.intermediate_size)
        full = windowed = 0
        for run in self.frames(grids):
            full += run.number * run.patches**2
            windowed += run.number * sum(w.number * w.length**2 for w in run.windows)
        num_full = len(set(c.fullatt_block_indexes) & set(range(c.depth)))
        pairs = num_full * full + (c.depth - num_full) * windowed
        return self.patch_flops(grids) + c.depth * patches * linear + 4 * c.hidden_size * pairs

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        wide = self.config.hidden_size * self.patches_a_token
        return 2 * sum(map(self.tokens, grids)) * wide * (wide + self.hidden)

    def positions(self, layout: Layout, grids: tuple[Grid, ...]) -> Tensor:
        """M-RoPE: text advances all three positions, an image's tokens lie on their grid.

        As transformers' ``get_rope_index``: what follows an image starts beyond its longer edge.
        Steps of a video lie ``tokens_per_second`` apart a second.
        """
        pieces, current, waiting = [], 0, list(grids)
        for segment in layout.segments:
            left = segment.length
            if not segment.visual:
                pieces.append(torch.arange(current, current + left).expand(3, -1))
                current += left
                continue
            while left > 0:
                grid = waiting.pop(0)
                left -= self.tokens(grid)
                if left < 0:
                    raise RequestError(
                        f"layout {layout.pattern!r}: a visual segment of {segment.length} tokens "
                        f"is no whole number of images; M-RoPE needs whole ones"
                    )
                pieces.append(current + self._places_of(grid))
                current += max(grid.rows, grid.columns) // self.merge
        return torch.cat(pieces, 1)

    def _places_of(self, grid: Grid) -> Tensor:
        """Temporal, vertical and horizontal positions of an image's tokens, int64 [3, n]."""
        apart = 1.0 if grid.seconds is None else grid.seconds * self.config.tokens_per_second
        times = (torch.arange(grid.steps) * apart).long()
        rows, columns = (torch.arange(n // self.merge) for n in (grid.rows, grid.columns))
        return torch.stack(torch.meshgrid(times, rows, columns, indexing="ij")).flatten(1)


def _indices(context: "Context", make: Callable[[], list[Any]], *shape: int) -> Tensor:
    """Indices on the context's device; where only shapes matter, none are worked out."""
    if tracing(context.device):
        return torch.empty(shape, dtype=torch.int64, device=context.device)
    return torch.tensor(make(), dtype=torch.int64, device=context.device).view(shape)


TOWERS.add("qwen2_5_vl", Qwen25VL)
