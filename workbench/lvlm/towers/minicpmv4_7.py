"""The tower of MiniCPM-V 4.7: that of 4.6, whose tokens have positions on a canvas (M-RoPE).

The slices of an image tile its canvas, and the whole image is stretched over it: both cover the
same rows and columns. Markers are text: the token before an image is taken for the one that opens
it, those between an image and its slices are none of |V| and left out, as they move nothing.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from workbench.lvlm.layout import Layout
from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.minicpmv4_6 import MiniCPMV
from workbench.vocabulary.errors import RequestError


class Canvas(MiniCPMV):
    """MiniCPM-V 4.7: a whole image is stretched over the canvas that its slices tile."""

    serves: ClassVar[Serves] = {"minicpmv4_7": ("minicpmv4_7_vision",)}
    unlisted = None
    has_positions = True

    def positions(self, layout: Layout, grids: tuple[Grid, ...]) -> Tensor:
        """As transformers' ``get_rope_index``: what follows an image starts beyond its canvas."""
        pieces: list[Tensor] = []
        current, waiting, opened = 0, [*self._frames(grids)], False
        for segment in layout.segments:
            remaining = segment.length
            if not segment.visual:
                pieces.append(torch.arange(current, current + remaining).repeat(3, 1))
                current += remaining
                opened = remaining > 0
                continue
            if opened and remaining:  # The marker before it lies outside the canvas' corner.
                current -= 1
                pieces[-1][1:, -1] = max(current - 1, 0)
                opened = False
            while remaining > 0:
                frame = waiting.pop(0)
                places, edge = self._on_canvas(frame)
                remaining -= places.shape[1]
                if remaining < 0:
                    raise RequestError(
                        f"layout {layout.pattern!r}: a visual segment of {segment.length} tokens "
                        "is no whole number of images; M-RoPE needs whole ones"
                    )
                pieces.append(current + places)
                current += edge + 1
        return torch.cat(pieces, 1)

    def _frames(self, grids: tuple[Grid, ...]) -> Iterator[list[Grid]]:
        """Each image with its slices."""
        waiting = [*grids]
        while waiting:
            count = 1
            if len(waiting) > 1 and waiting[1].tiles is not None:
                count += waiting[1].tiles[0] * waiting[1].tiles[1]
            yield waiting[:count]
            waiting = waiting[count:]

    def _on_canvas(self, frame: list[Grid]) -> tuple[Tensor, int]:
        """Positions [3, n] of an image and its slices from 0 on, and the canvas' longer edge."""
        whole, *slices = ((grid.rows // self.side, grid.columns // self.side) for grid in frame)
        rows, columns = frame[-1].tiles or (1, 1)
        high, wide = slices[0] if slices else whole
        canvas = rows * high, columns * wide
        spread = (
            torch.linspace(0, edge - 1, n).round().long()
            for edge, n in zip(canvas, whole, strict=True)
        )
        places = [_grid(*spread)]
        for index in range(len(slices)):
            above, before = index // columns * high, index % columns * wide
            places.append(_grid(above + torch.arange(high), before + torch.arange(wide)))
        return torch.cat(places, 1), max(canvas)


def _grid(rows: Tensor, columns: Tensor) -> Tensor:
    """Temporal, vertical and horizontal positions of a grid, int64 [3, n]."""
    down, across = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((torch.zeros_like(down), down, across)).flatten(1)


TOWERS.add("minicpmv4_7", Canvas)
