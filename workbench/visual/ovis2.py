"""Ovis2: tiles of 448 pixels that keep nine tenths of an image, after the whole image."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.canvas import canvases, nearest_canvas
from workbench.visual.files import BOTH, CONFIG, ImageFiles
from workbench.vocabulary.errors import RequestError

MOST_TILES = 256
ENOUGH = 0.9
"""The share of an image's pixels that a canvas has to keep."""
UNSAID = {"image_size": 224, "patch_size": 14, "merge": 1}
"""What transformers' class of the tower has where config.json leaves it out."""


@dataclass(frozen=True)
class Ovis2(FrontEnd):
    """The fewest tiles are taken that keep enough of an image's pixels, else those that keep most.

    A frame of a video is an image: its processor has no rule for them. Ids that stand around an
    image and between its tiles have embeddings in the tower's table; they are markers.
    """

    source: ClassVar[str] = (
        "transformers' conversion script of AIDC-AI's Ovis2; Ovis2ImageProcessor and"
        " Ovis2Processor in transformers"
    )
    models: ClassVar[tuple[str, ...]] = ("ovis2-",)

    image_size: int = 448
    patch_size: int = 14
    merge: int = 2
    """Patches a side of a token, the hidden_stride."""
    min_tiles: int = 1
    """The fewest tiles where the canvas of the nearest shape is taken."""
    max_tiles: int = 12
    tiled: bool = True
    """Whether an image is cut into tiles (crop_to_patches)."""
    covering: bool = True
    """Whether a canvas is chosen by what it keeps (use_covering_area_grid), not by its shape."""

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "ovis2" and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        fields = {"merge": "hidden_stride"}
        for name, unsaid in UNSAID.items():
            stated = files.tower.get(fields.get(name, name))
            files.side(name, unsaid if stated is None else stated, CONFIG)
        files.whole_patches(self.image_size, self.patch_size)
        if files.images is not None:
            self._read_images(files, *files.images)
        edge, patch, merge = (files.taken[name][0] for name in UNSAID)
        side = edge // patch
        if side % merge:
            raise RequestError(
                f"model {files.model!r}: {CONFIG}: hidden_stride {merge}: {side} patches a side "
                f"are no multiple of {merge}"
            )
        tokens = (side // merge) ** 2
        placed = files.both.get("image_seq_length")
        if placed is not None and placed != tokens:
            raise RequestError(
                f"model {files.model!r}: {BOTH}: image_seq_length {placed!r:.60}: its processor "
                f"puts so many tokens for a tile, and the tower makes {tokens}"
            )

    @staticmethod
    def _read_images(files: ImageFiles, file: str, fields: Mapping[str, Any]) -> None:
        """Take the image processor's settings, its class's where the file leaves one out."""
        size = fields.get("size")
        files.side("image_size", 384 if size is None else size, file)
        for setting, field, unsaid in (
            ("tiled", "crop_to_patches", False),
            ("covering", "use_covering_area_grid", True),
        ):
            value = fields.get(field)
            if value not in (None, True, False):
                raise RequestError(
                    f"model {files.model!r}: {file}: {field} {value!r:.60}: true or false"
                )
            files.taken[setting] = (unsaid if value is None else value), file
        for setting, field in (("min_tiles", "min_patches"), ("max_tiles", "max_patches")):
            value = fields.get(field)
            number = files.take(setting, value, file)
            if number and isinstance(value, int) and value > MOST_TILES:
                raise RequestError(
                    f"model {files.model!r}: {file}: {field} {value}: at most {MOST_TILES}"
                )

    @property
    def tokens_a_tile(self) -> int:
        """Tokens of one tile."""
        return (self.image_size // self.patch_size // self.merge) ** 2

    def tiles(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows of tiles, without the whole image that several have."""
        if not self.tiled or self.max_tiles == 1:
            return 1, 1
        if self.covering:
            return covering_canvas(width, height, self.image_size, self.max_tiles)
        return nearest_canvas(width, height, self.image_size, self.min_tiles, self.max_tiles)

    def num_tiles(self, width: int, height: int) -> int:
        """Tiles of an image, the whole one among them."""
        columns, rows = self.tiles(width, height)
        return columns * rows + (columns * rows > 1)

    def tokens_of_image(self, width: int, height: int) -> int:
        return self.tokens_a_tile * self.num_tiles(width, height)

    def markers_of_image(self, width: int, height: int) -> int:
        """Three around the whole image, and one between every two tiles."""
        columns, rows = self.tiles(width, height)
        return 2 + columns * rows


@lru_cache(maxsize=1024)
def covering_canvas(width: int, height: int, edge: int, most: int) -> tuple[int, int]:
    """Columns and rows of the fewest tiles of ``edge`` pixels that keep enough of an image.

    A tile keeps what is left of its share of the image once that is shrunk to the edge. Where no
    canvas keeps enough, it is the one that keeps most. As transformers' Ovis2ImageProcessor, which
    tries a canvas as rows and columns, and then takes it as columns and rows.
    """
    kept = {
        canvas: sum(_areas(width, height, edge, *canvas)) / (width * height)
        for canvas in canvases(1, most)
    }
    enough = [canvas for canvas, share in kept.items() if share > ENOUGH]
    if enough:
        return min(enough, key=lambda canvas: (canvas[0] * canvas[1], -kept[canvas]))
    return min(kept, key=lambda canvas: (-kept[canvas], canvas[0] * canvas[1]))


def _areas(width: int, height: int, edge: int, rows: int, columns: int) -> Iterator[float]:
    """Pixels that each tile keeps, row by row; the last of a row or column has the remainder."""
    high, wide = height // rows, width // columns
    for row in range(rows):
        tall = high if row < rows - 1 else height - row * high
        for column in range(columns):
            broad = wide if column < columns - 1 else width - column * wide
            long, short = max(tall, broad), min(tall, broad)
            yield edge * (short / long * edge) if long > edge else long * short


VISIONS.add("ovis2", Ovis2())
