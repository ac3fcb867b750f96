"""What the towers of Qwen's families share: any size of image, merged patches, M-RoPE."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby, islice
from math import isqrt
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.lvlm.kernels.modelled import tracing
from workbench.lvlm.layout import Layout
from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import MERGED, Grid, Tower, finish, implementation
from workbench.lvlm.towers.frames import Frames, GroupedAttention, Windows
from workbench.visual.qwen_vl import MAX_RATIO
from workbench.visual.qwen_vl import QwenVL as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

SIDE = 32
"""Tokens a side of the image that stands for |V|: 1,024 tokens."""


class QwenTower(Tower):
    """Images of any size in whole tokens; video in steps of ``temporal_patch_size`` frames.

    A subclass names the config's classes in the family's transformers module, and
    what differs: the modules, and the matmuls of one patch.
    """

    without_adapter = MERGED
    merges = True
    has_positions = True
    attention: type[GroupedAttention] = GroupedAttention
    config_class: str
    model_class: str
    package = ""
    """transformers' of its classes, where that is not the decoder's."""
    prefix = "visual."
    """What begins the names of its tensors in a checkpoint."""

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        self.hidden = model.config.hidden_size
        self.family = replace(model.family, package=self.package or model.family.package)
        self.config = self.settled()
        self.merge = self.side_of_token()
        self.patches_a_token = self.merge**2
        self.image = Grid(1, SIDE * self.merge, SIDE * self.merge)

    out_field = "out_hidden_size"
    """The config's word for the width of a token."""

    def settled(self) -> Any:
        """The tower's configuration, which has the width of a token.

        Raises RequestError where that is not the decoder's.
        """
        whole, out = self.model.whole, self.out_field
        assert whole is not None, "chosen by its config"
        fields = whole.vision_config.to_dict()
        if self.model.stated and fields[out] != self.hidden:
            raise RequestError(
                f"model {self.model.name!r}: vision_config.{out} {fields[out]!r:.60}: the "
                f"decoder's hidden_size is {self.hidden}"
            )
        kind = self.family.from_transformers(self.config_class, "configuration")
        return kind(**{**fields, out: self.hidden})

    def side_of_token(self) -> int:
        """Patches a side of an image's token."""
        return int(self.config.spatial_merge_size)

    @property
    def stated_kind(self) -> str:
        """The model type of the vision_config as its file has it: older ones have the outer's."""
        assert self.model.whole is not None, "chosen by its config"
        return str(self.model.whole.vision_config.model_type)

    @property
    def width(self) -> int:
        """Width of a patch in the tower."""
        return int(self.config.hidden_size)

    @property
    def flags(self) -> list[str]:
        """Where the checkpoint's limits leave no image such as those that stand for |V|."""
        eye, edge = self.eye, SIDE * self.eye.factor
        if eye.resized(edge, edge) == (edge, edge):
            return []
        return [
            f"image: the {self.tokens_each:,} tokens of an image, where no file is shown, are "
            f"none of the checkpoint's, whose images have {eye.min_pixels:,} to "
            f"{eye.max_pixels:,} pixels; give --image"
        ]

    def grids(self, num_visual: int) -> tuple[Grid, ...]:
        """Images of 1,024 tokens; up to that, one image as nearly square as can be."""
        if num_visual == 0 or num_visual >= self.tokens_each:
            return super().grids(num_visual)
        grid, least = self._single(num_visual), self.eye.min_tokens
        if grid is None:
            sizes = [n for n in range(least, self.tokens_each + 1) if self._single(n)]
            near = [max((n for n in sizes if n < num_visual), default=0)]
            near += [min((n for n in sizes if n > num_visual), default=self.tokens_each)]
            raise RequestError(
                f"num_visual {num_visual}: {self.front_end} takes images of at least {least} "
                f"tokens, edges up to {MAX_RATIO} to 1; the nearest are {near[0]} and {near[1]}"
            )
        return (grid,)

    def _single(self, tokens: int) -> Grid | None:
        rows = next(n for n in range(isqrt(tokens), 0, -1) if tokens % n == 0)
        columns = tokens // rows
        if tokens < self.eye.min_tokens or columns > MAX_RATIO * rows:
            return None
        return Grid(1, rows * self.merge, columns * self.merge)

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid.of(grid.rows // self.merge, grid.columns // self.merge)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        self.config._attn_implementation = implementation(context)
        kind = self.family.from_transformers(self.model_class)
        visual = context.create(lambda: kind(self.config))
        context.weigh_component("tower and adapter", visual, self.prefix, self.stated_kind)
        finish(visual, context)
        batch = grids * context.cell.batch
        frames, module = self.frames(batch), self.family.module()
        for index, block in enumerate(visual.blocks):
            block.attn = self.attention(block.attn, frames, self.sees_frame(index), module)
        return self.modules(visual, context, batch)

    def sees_frame(self, index: int) -> bool:
        """Whether a block's patches see their whole frame, not a window of it."""
        return True

    @abstractmethod
    def modules(
        self, visual: Any, context: "Context", grids: tuple[Grid, ...]
    ) -> tuple[nn.Module, nn.Module]:
        """Tower and adapter of transformers' ``visual`` for the images of a whole batch."""

    def tables(
        self, visual: Any, context: "Context", grids: tuple[Grid, ...]
    ) -> tuple[Tensor, Tensor]:
        """cos and sin [patches, head size] of every patch's row and column, float32."""
        patches = sum(grid.patches for grid in grids)
        places = indices(context, lambda: self.places(grids), patches, 2)
        like = torch.empty(0, dtype=context.dtype, device=context.device)
        rotary = type(visual.rotary_pos_emb)(self.config).to(context.device)
        cos, sin = rotary(like, places)
        return cos, sin

    def frames(self, grids: tuple[Grid, ...]) -> list[Frames]:
        """Runs of frames that are alike."""
        runs = []
        for (rows, columns), alike in groupby(grids, key=lambda grid: (grid.rows, grid.columns)):
            steps = sum(grid.steps for grid in alike)
            runs.append(Frames(steps, rows * columns, self.windows(rows, columns)))
        return runs

    def windows(self, rows: int, columns: int) -> tuple[Windows, ...]:
        """The windows of a frame of so many patches; none where every block sees it whole."""
        return ()

    def block(self, grid: Grid) -> int:
        """Side of the squares of patches that follow each other in the processor's order."""
        return self.merge

    def places(self, grids: tuple[Grid, ...]) -> list[tuple[int, int]]:
        """Row and column of every patch, in the processor's order: token by token."""
        places: list[tuple[int, int]] = []
        for grid in grids:
            m = self.block(grid)
            frame = [
                (top + r, left + c)
                for top in range(0, grid.rows, m)
                for left in range(0, grid.columns, m)
                for r in range(m)
                for c in range(m)
            ]
            places += frame * grid.steps
        return places

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        return (self.grid_of(*self.eye.resized(width, height)),)

    @property
    def eye(self) -> FrontEnd:
        """The front end, as one of Qwen's."""
        assert isinstance(self.front, FrontEnd)
        return self.front

    def grid_of(self, wide: int, high: int) -> Grid:
        """The patches of an image of that size, which is of whole tokens."""
        return Grid(1, high // self.config.patch_size, wide // self.config.patch_size)

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        together = self.config.temporal_patch_size
        shape = (self.config.in_channels, together, -1)
        # The processor repeats an image in time: [patches, C, time, pixels of a frame].
        stills = (self.still(image, num_frames).unflatten(1, shape) for image in images)
        if not num_frames:
            return torch.cat([still.flatten(1) for still in stills])
        steps = []
        while pair := [*islice(stills, together)]:
            pair += [pair[-1]] * (together - len(pair))  # The last frame stands for what lacks.
            steps.append(torch.stack([still[:, :, 0] for still in pair], 2).flatten(1))
        return torch.cat(steps)

    def still(self, image: "Image", num_frames: int) -> Tensor:
        """transformers' patches of an image, or of one of so many frames: [patches, pixels]."""
        width, height = image.size
        kind, eye = self.processor_class(), self.eye
        # A frame's size is not that of an image: it is made here, by the processor's own filter.
        size = eye.resized_frame(width, height, num_frames) if num_frames else (width, height)
        processor = kind(
            do_resize=not num_frames,
            size={"shortest_edge": eye.min_pixels, "longest_edge": eye.max_pixels},
            patch_size=self.config.patch_size,
            temporal_patch_size=self.config.temporal_patch_size,
            merge_size=self.merge,
            **self.normalised(),
        )
        picture = image.convert("RGB").resize(size, kind.resample) if num_frames else image
        patches: Tensor = processor(picture, return_tensors="pt")["pixel_values"]
        return patches

    def processor_class(self) -> Any:
        """transformers' image processor."""
        from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as module

        return module.Qwen2VLImageProcessorPil

    def normalised(self) -> dict[str, Any]:
        """The processor's mean and deviation of a colour, where they are not its defaults."""
        return {}

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        return batch * sum(grid.patches for grid in grids), self._pixels_a_patch

    @property
    def _pixels_a_patch(self) -> int:
        c = self.config
        return c.in_channels * c.temporal_patch_size * c.patch_size**2

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        return 2 * sum(grid.patches for grid in grids) * self._pixels_a_patch * self.width

    @property
    def depth(self) -> int:
        """Blocks of the tower."""
        return int(self.config.depth)

    def attention_weights(self) -> int:
        """Elements of the matrices of a block's attention."""
        return 4 * self.width**2

    @abstractmethod
    def mlp_weights(self) -> int:
        """Elements of the matrices of a block's MLP."""

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        depth, patches = self.depth, sum(grid.patches for grid in grids)
        linear = 2 * (self.attention_weights() + self.mlp_weights())
        full = windowed = 0
        for run in self.frames(grids):
            full += run.number * run.patches**2
            windowed += run.number * sum(w.number * w.length**2 for w in run.windows)
        num_full = sum(self.sees_frame(index) for index in range(depth))
        pairs = num_full * full + (depth - num_full) * windowed
        return self.patch_flops(grids) + depth * patches * linear + 4 * self.width * pairs

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        wide = self.width * self.patches_a_token
        return 2 * sum(map(self.tokens, grids)) * wide * (wide + self.hidden)

    def positions(self, layout: Layout, grids: tuple[Grid, ...]) -> Tensor | None:
        """M-RoPE: text advances all three positions, an image's tokens lie on their grid.

        As transformers' ``get_rope_index``: what follows an image starts beyond its longer edge.
        """
        pieces, current, waiting = [], 0, list(grids)
        for segment in layout.segments:
            remaining = segment.length
            if not segment.visual:
                pieces.append(torch.arange(current, current + remaining).expand(3, -1))
                current += remaining
                continue
            while remaining > 0:
                grid = waiting.pop(0)
                remaining -= self.tokens(grid)
                if remaining < 0:
                    raise RequestError(
                        f"layout {layout.pattern!r}: a visual segment of {segment.length} tokens "
                        f"is no whole number of images; M-RoPE needs whole ones"
                    )
                pieces.append(current + self.places_of(grid))
                current += self.beyond(grid)
        return torch.cat(pieces, 1)

    def beyond(self, grid: Grid) -> int:
        """How far behind the first position of an image or a video what follows it starts."""
        return max(grid.rows, grid.columns) // self.merge

    def places_of(self, grid: Grid) -> Tensor:
        """Temporal, vertical and horizontal positions of an image's tokens, int64 [3, n]."""
        times = (torch.arange(grid.steps) * self.steps_apart(grid)).long()
        rows, columns = (torch.arange(n // self.merge) for n in (grid.rows, grid.columns))
        return torch.stack(torch.meshgrid(times, rows, columns, indexing="ij")).flatten(1)

    def steps_apart(self, grid: Grid) -> float:
        """Temporal positions from one step of a video to the next."""
        return 1.0


class WholeVideo(QwenTower):
    """A video is one grid of several steps (Qwen2-VL, Qwen2.5-VL)."""

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        """The whole video as one: pairs of frames are a step."""
        frame = self.grid_of(*self.eye.resized_frame(width, height, num_frames))
        steps, together = self.eye.steps(num_frames), self.config.temporal_patch_size
        return ((Grid(steps, frame.rows, frame.columns, together / fps),),)


def indices(context: "Context", make: Callable[[], list[Any]], *shape: int) -> Tensor:
    """Indices on the context's device; where only shapes matter, none are worked out."""
    if tracing(context.device):
        return torch.empty(shape, dtype=torch.int64, device=context.device)
    return torch.tensor(make(), dtype=torch.int64, device=context.device).view(shape)
