"""DeepSeek-OCR 2: an image padded to 1,024 pixels, and tiles of 768 pixels of a larger one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.canvas import nearest_canvas
from workbench.visual.files import BOTH, ImageFiles
from workbench.vocabulary.errors import RequestError

MOST_TILES = 100
QUERIES = {1024: 256, 768: 144}
"""By the edge of a square in pixels, the tower's learned queries, each of which is a token."""


@dataclass(frozen=True)
class DeepseekOcr2(FrontEnd):
    """Tiles come first, then the whole image and a separator; a frame is an image."""

    source: ClassVar[str] = (
        "the defaults of DeepseekOcr2ImageProcessor and DeepseekOcr2Processor in transformers,"
        " which the conversion script of DeepSeek-OCR 2 takes"
    )
    models: ClassVar[tuple[str, ...]] = ("deepseek-ocr-2",)

    image_size: int = 1024
    tile_size: int = 768
    min_tiles: int = 2
    max_tiles: int = 6

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "deepseek_ocr2" and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        fixed: list[tuple[str, Mapping[str, Any], str, object]] = [
            (BOTH, files.both, "patch_size", 16),
            (BOTH, files.both, "downsample_ratio", 4),
        ]
        if files.images is not None:
            file, fields = files.images
            files.side("image_size", fields.get("size"), file)
            fixed += [
                (file, {k: v for k, (v, _) in files.taken.items()}, "image_size", self.image_size),
                (file, fields, "tile_size", self.tile_size),
                (file, fields, "crop_to_patches", True),
            ]
            for setting, field in (("min_tiles", "min_patches"), ("max_tiles", "max_patches")):
                files.take(setting, fields.get(field), file)
        for file, fields, field, only in fixed:
            value = fields.get(field)
            if value is not None and (value != only or isinstance(value, bool) != (only is True)):
                raise RequestError(
                    f"model {files.model!r}: {file}: {field} {value!r:.60}: "
                    f"{str(only).lower()}, for which its tower has queries"
                )
        least, most = (
            files.taken.get(name, (getattr(self, name),))[0] for name in ("min_tiles", "max_tiles")
        )
        if not least <= most <= MOST_TILES:
            raise RequestError(
                f"model {files.model!r}: min_patches {least}, max_patches {most}: the first is "
                f"the smaller, and they are at most {MOST_TILES}"
            )

    def tiles(self, width: int, height: int) -> tuple[int, int] | None:
        """Rows and columns of tiles; None of an image that is no larger than one."""
        if max(width, height) <= self.tile_size:
            return None
        columns, rows = nearest_canvas(
            width, height, self.tile_size, self.min_tiles, self.max_tiles
        )
        return rows, columns

    def tokens_of_image(self, width: int, height: int) -> int:
        rows, columns = self.tiles(width, height) or (0, 0)
        return QUERIES[self.image_size] + 1 + rows * columns * QUERIES[self.tile_size]


VISIONS.add("deepseek-ocr-2", DeepseekOcr2())
