"""Qwen2.5-VL's own tower: native resolution, window attention, 2 × 2 patches merged to a token."""

from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.frames import Windows
from workbench.lvlm.towers.qwen_vl import WholeVideo, indices
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.context import Context

MODEL_TYPE = "qwen2_5_vl_vision"


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


class Qwen25VL(WholeVideo):
    """Images of any size in whole tokens of 28 × 28 pixels; video in steps of two frames."""

    serves: ClassVar[Serves] = {"qwen2_5_vl": (MODEL_TYPE,)}
    front_end = "qwen2.5-vl"
    config_class = "Qwen2_5_VLVisionConfig"
    model_class = "Qwen2_5_VisionTransformerPretrainedModel"

    def sees_frame(self, index: int) -> bool:
        return index in self.config.fullatt_block_indexes

    def mlp_weights(self) -> int:
        return 3 * self.width * self.config.intermediate_size

    def modules(
        self, visual: Any, context: "Context", grids: tuple[Grid, ...]
    ) -> tuple[nn.Module, nn.Module]:
        patches = sum(grid.patches for grid in grids)
        where = indices(context, lambda: self.order(grids), patches // self.patches_a_token)
        cos, sin = (
            table.unflatten(0, (-1, self.patches_a_token))[where].flatten(0, 1)
            for table in self.tables(visual, context, grids)
        )
        merger = Merger(visual.merger, torch.argsort(where))
        for constant in (where, merger.back, cos, sin):
            context.keep(constant)
        return Blocks(visual, where, (cos, sin)), merger

    def windows(self, rows: int, columns: int) -> tuple[Windows, ...]:
        """Windows of one size together, in the order in which the tower sees them."""
        windows, start = [], 0
        for length, same in groupby(self._windows(rows, columns), key=len):
            count = len([*same])
            size = length * self.patches_a_token
            windows.append(Windows(start, count, size))
            start += count * size
        return tuple(windows)

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
        size, token = self.config.window_size, self.merge * self.config.patch_size
        side = size // token
        if side < 1:
            raise RequestError(
                f"model {self.model.name!r}: vision_config.window_size {size}: a window has a "
                f"token at least, {token} pixels"
            )
        windows = [
            [
                r * wide + c
                for r in range(top, min(top + side, high))
                for c in range(left, min(left + side, wide))
            ]
            for top in range(0, high, side)
            for left in range(0, wide, side)
        ]
        return sorted(windows, key=len, reverse=True)

    def steps_apart(self, grid: Grid) -> float:
        """Steps of a video lie ``tokens_per_second`` apart a second."""
        return 1.0 if grid.seconds is None else grid.seconds * self.config.tokens_per_second


TOWERS.add("qwen2_5_vl", Qwen25VL)
