"""Granite for Docling: tiles of 512 pixels and the whole page beside several, 64 tokens each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS
from workbench.visual.canvas import nearest_canvas
from workbench.visual.files import CONFIG, ImageFiles
from workbench.visual.internvl import MOST_TILES, InternVL
from workbench.vocabulary.errors import RequestError

LONGEST = 16
"""The most tiles a side of a page: the tokenizer has markers for no more."""
DENSE = (
    ("dense_scale", "dense_max_scale"),
    ("dense_least", "dense_min_aspect"),
    ("dense_most", "dense_max_aspect"),
)
"""Settings, and the processor's words for them."""


@dataclass(frozen=True)
class GraniteDocling(InternVL):
    """InternVL's tiles, at most sixteen a side; a frame of a video is an image.

    On the fine route, which the file of the image processor asks for, a tile has four times as
    many tokens. Wide pages that would be shrunk too far may get more tiles.
    """

    source: ClassVar[str] = (
        "https://huggingface.co/ibm-granite/granite-for-docling-500m, by the defaults of"
        " transformers' GraniteDoclingConfig and GraniteDoclingImageProcessor, which name it"
    )
    models: ClassVar[tuple[str, ...]] = ("granite-for-docling-",)

    image_size: int = 512
    patch_size: int = 16
    shuffle: int = 4
    max_tiles: int = 32
    fine: bool = False
    """Whether pages take the fine route (fine_route)."""
    dense_tiles: int = 0
    """The most tiles of a page that more would help (dense_max_patches); 0 for none."""
    dense_scale: float = 0.0
    """That is a page whose width is shrunk below this share,"""
    dense_least: float = 0.0
    """is this many times as wide as high"""
    dense_most: float = 0.0
    """and no more than this many times; 0 leaves each out."""

    def serves(self, config: Mapping[str, Any]) -> bool:
        tower = config.get("vision_config")
        return config.get("model_type") == "granite_docling" and isinstance(tower, Mapping)

    def shuffle_of(self, files: ImageFiles) -> tuple[str, int]:
        factor = files.tower.get("scale_factor")
        files.take("shuffle", self.shuffle if factor is None else factor, CONFIG)
        shuffle: int = files.taken["shuffle"][0]
        if files.tower.get("use_fine_route") is not False and shuffle % 2:
            raise RequestError(
                f"model {files.model!r}: {CONFIG}: scale_factor {shuffle}: even, for the fine "
                "route shuffles by half of it"
            )
        return f"scale_factor {shuffle}", shuffle

    def read(self, files: ImageFiles) -> None:
        super().read(files)
        if files.images is None:
            return
        file, fields = files.images
        for field in ("crop_to_patches", "fine_route"):
            if fields.get(field) not in (None, True, False):
                raise RequestError(
                    f"model {files.model!r}: {file}: {field} {fields[field]!r:.60}: true or false"
                )
        if fields.get("crop_to_patches") is False:
            files.taken["max_tiles"] = 1, file
        if fields.get("fine_route"):
            if files.tower.get("use_fine_route") is False:
                raise RequestError(
                    f"model {files.model!r}: {file}: fine_route true, but {CONFIG} has "
                    "use_fine_route false: the model has no such route"
                )
            files.taken["fine"] = True, file
        files.take("dense_tiles", fields.get("dense_max_patches"), file, 0)
        if files.taken.get("dense_tiles", (0,))[0] > MOST_TILES:
            raise RequestError(
                f"model {files.model!r}: {file}: dense_max_patches: at most {MOST_TILES}"
            )
        for setting, field in DENSE:
            files.take(setting, fields.get(field), file, 0.0)

    @property
    def tokens_a_tile(self) -> int:
        return super().tokens_a_tile * (4 if self.fine else 1)

    def most_tiles(self, width: int, height: int) -> int:
        """The most tiles that a page of this size may be cut into."""
        if self.max_tiles <= 1 or not self.dense_tiles:
            return self.max_tiles
        if self.dense_scale <= 0 and self.dense_least <= 0:
            return self.max_tiles
        shape = width / height
        columns, _ = self._canvas(width, height, self.max_tiles)
        dense = (
            (self.dense_least <= 0 or shape > self.dense_least)
            and (self.dense_most <= 0 or shape <= self.dense_most)
            and (self.dense_scale <= 0 or columns * self.image_size / width < self.dense_scale)
        )
        return self.dense_tiles if dense else self.max_tiles

    def _canvas(self, width: int, height: int, most: int) -> tuple[int, int]:
        least = min(self.min_tiles, most)
        return nearest_canvas(width, height, self.image_size, least, most, LONGEST)

    def tiles(self, width: int, height: int) -> tuple[int, int]:
        most = self.most_tiles(width, height)
        return (1, 1) if most <= 1 else self._canvas(width, height, most)

    def markers_of_image(self, width: int, height: int) -> int:
        """A pair before every tile, a line break a row, and those around the whole page."""
        columns, rows = self.tiles(width, height)
        return rows * (2 * columns + 1) + 4 * (rows * columns > 1)

    def tokens_of_step(self, width: int, height: int, num_frames: int = 1) -> int:
        return self.tokens_of_image(width, height)


VISIONS.add("granite-docling", GraniteDocling())
