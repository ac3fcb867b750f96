"""Llama 4: an image in up to sixteen tiles of 336 pixels, and the whole one beside several."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.canvas import MOST_TILES, canvas_of
from workbench.visual.files import BOTH, CONFIG, ImageFiles
from workbench.vocabulary.errors import RequestError


def single(value: float) -> float:
    """A quotient as its processor computes it, in float32."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


@dataclass(frozen=True)
class Llama4(FrontEnd):
    """The canvas of tiles that enlarges an image least, or else shrinks it least.

    Under ``to_max_canvas`` it is the one that enlarges it most. Patches are shuffled, 2 × 2 to a
    token. Markers of text stand between tiles and around them.
    """

    source: ClassVar[str] = (
        "https://huggingface.co/meta-llama/Llama-4-Scout-17B-16E-Instruct config.json and"
        " preprocessor_config.json"
    )
    models: ClassVar[tuple[str, ...]] = ("llama-4",)

    image_size: int = 336
    patch_size: int = 14
    shuffle: int = 2
    """Patches a side of a token: the inverse of pixel_shuffle_ratio."""
    max_tiles: int = 16
    to_max_canvas: bool = False
    """``resize_to_max_canvas`` of its processor."""

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "llama4" and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        files.side("image_size", files.tower.get("image_size"), CONFIG)
        files.side("patch_size", files.tower.get("patch_size"), CONFIG)
        ratio = files.tower.get("pixel_shuffle_ratio", 0.5)
        shuffles = {1.0 / n: n for n in (1, 2, 4)}
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or ratio not in shuffles:
            raise RequestError(
                f"model {files.model!r}: {CONFIG}: pixel_shuffle_ratio {ratio!r:.60}: 1, 0.5 or "
                "0.25"
            )
        files.take("shuffle", shuffles[ratio], CONFIG)
        if files.images is not None:
            file, fields = files.images
            files.side("image_size", fields.get("size"), file)
            files.take("max_tiles", fields.get("max_patches"), file)
            enlarges = fields.get("resize_to_max_canvas")
            if isinstance(enlarges, bool):
                files.taken["to_max_canvas"] = enlarges, file
            elif enlarges is not None:
                raise RequestError(
                    f"model {files.model!r}: {file}: resize_to_max_canvas {enlarges!r:.60}: true "
                    "or false"
                )
        files.take("patch_size", files.both.get("patch_size"), BOTH)
        files.whole_patches(self.image_size, self.patch_size)
        tiles, file = files.taken.get("max_tiles", (self.max_tiles, CONFIG))
        if tiles > MOST_TILES:
            raise RequestError(
                f"model {files.model!r}: {file}: max_patches {tiles}: at most {MOST_TILES}"
            )
        edge = files.taken.get("image_size", (self.image_size,))[0]
        side = edge // files.taken.get("patch_size", (self.patch_size,))[0]
        if side % shuffles[ratio]:
            raise RequestError(
                f"model {files.model!r}: {CONFIG}: pixel_shuffle_ratio {ratio}: {side} patches a "
                f"side are no multiple of {shuffles[ratio]}"
            )

    @property
    def tokens_a_tile(self) -> int:
        """Tokens of one tile."""
        return (self.image_size // self.patch_size // self.shuffle) ** 2

    def canvas(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of tiles, without the whole image beside several."""
        edge, most = self.image_size, self.max_tiles
        return canvas_of(width, height, edge, most, single, self.to_max_canvas)

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Pixels across and down of an image on its canvas, whose shape it keeps.

        A larger canvas than the image enlarges it to a tile's edge at most, unless it is to be
        filled.
        """
        rows, columns = self.canvas(width, height)
        wide, high = columns * self.image_size, rows * self.image_size
        if not self.to_max_canvas:
            wide = min(max(width, self.image_size), wide)
            high = min(max(height, self.image_size), high)
        across, down = wide / width, high / height
        if across < down:
            return wide, max(1, min(floor(height * across), high))
        return max(1, min(floor(width * down), wide)), high

    def num_tiles(self, width: int, height: int) -> int:
        """Tiles of an image, the whole one among them where there are several."""
        rows, columns = self.canvas(width, height)
        return rows * columns + (rows * columns > 1)

    def tokens_of_image(self, width: int, height: int) -> int:
        return self.tokens_a_tile * self.num_tiles(width, height)

    def markers_of_image(self, width: int, height: int) -> int:
        rows, columns = self.canvas(width, height)
        between = rows * columns if rows * columns > 1 else 0
        return 3 + between  # Its beginning and end, the whole image's own, and one a tile.


VISIONS.add("llama4", Llama4())
