"""LFM2-VL: a small image at its own shape; a large one in tiles of 512 pixels and as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor, sqrt
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.canvas import nearest_canvas
from workbench.visual.files import CONFIG, ImageFiles
from workbench.vocabulary.errors import RequestError

MOST_TILES = 256
NUMBERS = (
    ("min_tiles", "min_tiles"),
    ("max_tiles", "max_tiles"),
    ("min_tokens", "min_image_tokens"),
    ("max_tokens", "max_image_tokens"),
    ("tile_size", "tile_size"),
)
"""Settings, and the processor's words for them."""
SWITCHES = (("splits", "do_image_splitting"), ("thumbnail", "use_thumbnail"))


@dataclass(frozen=True)
class Lfm2VL(FrontEnd):
    """The tiles come first, row by row, then the whole image, which is a large one's thumbnail.

    A frame of a video is an image.
    """

    source: ClassVar[str] = (
        "https://huggingface.co/LiquidAI/LFM2-VL-1.6B config.json and preprocessor_config.json,"
        " those of LFM2-VL-3B; Lfm2VlImageProcessor in transformers"
    )
    models: ClassVar[tuple[str, ...]] = ("lfm2-vl-",)
    resizes: ClassVar[bool] = True

    patch_size: int = 16
    merge: int = 2
    """Patches a side of a token, the downsample_factor."""
    tile_size: int = 512
    min_tiles: int = 2
    max_tiles: int = 10
    splits: bool = True
    """Whether a large image is cut into tiles (do_image_splitting)."""
    thumbnail: bool = True
    """Whether the whole image follows its tiles (use_thumbnail)."""
    min_tokens: int = 64
    max_tokens: int = 256
    tolerance: float = 2.0
    """How many times the pixels of ``max_tokens`` a large image has (max_pixels_tolerance)."""

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "lfm2_vl" and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        files.side("patch_size", files.tower.get("patch_size"), CONFIG)
        files.take("merge", files.config.get("downsample_factor"), CONFIG)
        if files.images is not None:
            file, fields = files.images
            files.side("patch_size", fields.get("encoder_patch_size"), file)
            files.take("merge", fields.get("downsample_factor"), file)
            files.take("tolerance", fields.get("max_pixels_tolerance"), file, 0.0)
            for setting, field in NUMBERS:
                files.take(setting, fields.get(field), file)
            for setting, field in SWITCHES:
                value = fields.get(field)
                if isinstance(value, bool):
                    files.taken[setting] = value, file
                elif value is not None:
                    raise RequestError(
                        f"model {files.model!r}: {file}: {field} {value!r:.60}: true or false"
                    )
        self._check(files)

    def _check(self, files: ImageFiles) -> None:
        """Raise RequestError for settings that do not go together."""

        def taken(setting: str) -> tuple[int, str]:
            value, file = files.taken.get(setting, (getattr(self, setting), CONFIG))
            return value, file

        for low, high in (("min_tiles", "max_tiles"), ("min_tokens", "max_tokens")):
            (least, _), (most, file) = taken(low), taken(high)
            if least > most:
                raise RequestError(
                    f"model {files.model!r}: {file}: {high} {most}: less than {low} {least}"
                )
        most, file = taken("max_tiles")
        if most > MOST_TILES:
            raise RequestError(
                f"model {files.model!r}: {file}: max_tiles {most}: at most {MOST_TILES}"
            )
        (tile, file), unit = taken("tile_size"), taken("patch_size")[0] * taken("merge")[0]
        if tile % unit:
            raise RequestError(
                f"model {files.model!r}: {file}: tile_size {tile}: a multiple of the {unit} "
                "pixels a side of a token"
            )

    @property
    def unit(self) -> int:
        """Pixels a side of a token."""
        return self.patch_size * self.merge

    @property
    def tokens_a_tile(self) -> int:
        """Tokens of one tile."""
        return (self.tile_size // self.unit) ** 2

    def tiles(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows of tiles; none where the whole image is the only one."""
        unit, whole = self.unit, self.min_tiles == self.max_tiles == 1
        pixels = max(self.patch_size, _nearest(width, unit)) * max(
            self.patch_size, _nearest(height, unit)
        )
        if not self.splits or whole or pixels <= self.max_tokens * unit**2 * self.tolerance:
            return 0, 0
        return nearest_canvas(width, height, self.tile_size, self.min_tiles, self.max_tiles)

    def whole(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of tokens of the whole image, or of a thumbnail.

        Raises RequestError for an image so narrow that its processor has no place for them.
        """
        unit, area = self.unit, width * height
        sides = [max(unit, _nearest(side, unit)) for side in (height, width)]
        pixels = sides[0] * sides[1]
        least, most = (tokens * unit**2 for tokens in (self.min_tokens, self.max_tokens))
        if pixels > most:
            shrink = sqrt(area / most)
            sides = [max(unit, floor(side / shrink / unit) * unit) for side in (height, width)]
        elif pixels < least:
            grow = sqrt(least / area)
            sides = [ceil(side * grow / unit) * unit for side in (height, width)]
        rows, columns = (side // unit for side in sides)
        places = max(self.max_tokens, self.tokens_a_tile if self.splits else 0)
        if rows * columns > places:
            raise RequestError(
                f"resolution {width}x{height}: too narrow: it would have {rows * columns:,} "
                f"tokens, and the processor of {self.name} pads images to {places}"
            )
        return rows, columns

    def tokens_of_image(self, width: int, height: int) -> int:
        columns, rows = self.tiles(width, height)
        high, wide = self.whole(width, height)
        if not columns:
            return high * wide
        return columns * rows * self.tokens_a_tile + self._has_thumbnail(columns * rows) * (
            high * wide
        )

    def _has_thumbnail(self, tiles: int) -> bool:
        return self.thumbnail and tiles > 1

    def pieces(self, width: int, height: int) -> list[tuple[int, int]]:
        """Rows and columns of patches of everything that the tower sees of an image, in order."""
        columns, rows = self.tiles(width, height)
        tile = self.tile_size // self.patch_size
        high, wide = (self.merge * side for side in self.whole(width, height))
        whole = [(high, wide)] if not columns or self._has_thumbnail(columns * rows) else []
        return [(tile, tile)] * (columns * rows) + whole

    def markers_of_image(self, width: int, height: int) -> int:
        """Those around an image, one before each tile, and one before the thumbnail."""
        columns, rows = self.tiles(width, height)
        tiles = columns * rows
        return 2 + (tiles + self.thumbnail if tiles > 1 else 0)


def _nearest(side: int, unit: int) -> int:
    """The multiple of a unit that is nearest."""
    return round(side / unit) * unit


VISIONS.add("lfm2-vl", Lfm2VL())
