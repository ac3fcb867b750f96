"""InternVL3 and 3.5: tiles of 448 pixels and a thumbnail, 256 tokens each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.canvas import nearest_canvas
from workbench.visual.files import CONFIG, ImageFiles
from workbench.vocabulary.errors import RequestError

MOST_TILES = 256


@dataclass(frozen=True)
class InternVL(FrontEnd):
    """An image is stretched to the grid of tiles whose shape is nearest; a frame is one tile.

    Patches are shuffled 2 × 2 into a token. That images are tiled is InternVLProcessor's own
    setting, which stands above the file of the image processor.
    """

    source: ClassVar[str] = (
        "https://huggingface.co/OpenGVLab/InternVL3-8B-hf config.json and"
        " preprocessor_config.json; InternVLProcessor and GotOcr2ImageProcessor in transformers"
    )
    models: ClassVar[tuple[str, ...]] = ("internvl3",)

    image_size: int = 448
    patch_size: int = 14
    shuffle: int = 2
    """Patches a side of a token: the inverse of downsample_ratio."""
    min_tiles: int = 1
    max_tiles: int = 12

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "internvl" and isinstance(
            config.get("vision_config"), Mapping
        )

    def shuffle_of(self, files: ImageFiles) -> tuple[str, int]:
        """The field of config.json with its value, and the patches a side of a token by it."""
        ratio = files.config.get("downsample_ratio", 0.5)
        shuffles = {1.0 / n: n for n in (1, 2, 4)}
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or ratio not in shuffles:
            raise RequestError(
                f"model {files.model!r}: {CONFIG}: downsample_ratio {ratio!r:.60}: 1, 0.5 or 0.25"
            )
        return f"downsample_ratio {ratio}", shuffles[ratio]

    def read(self, files: ImageFiles) -> None:
        ratio, shuffle = self.shuffle_of(files)
        files.take("shuffle", shuffle, CONFIG)
        files.side("image_size", files.tower.get("image_size"), CONFIG)
        files.side("patch_size", files.tower.get("patch_size"), CONFIG)
        if files.images is not None:
            file, fields = files.images
            files.side("image_size", fields.get("size"), file)
            for setting, field in (("min_tiles", "min_patches"), ("max_tiles", "max_patches")):
                value = fields.get(field)
                number = files.take(setting, value, file)
                if number and isinstance(value, int) and value > MOST_TILES:
                    raise RequestError(
                        f"model {files.model!r}: {file}: {field} {value}: at most {MOST_TILES}"
                    )
        files.whole_patches(self.image_size, self.patch_size)
        side = (
            files.taken.get("image_size", (self.image_size,))[0]
            // files.taken.get("patch_size", (self.patch_size,))[0]
        )
        if side % shuffle:
            raise RequestError(
                f"model {files.model!r}: {CONFIG}: {ratio}: {side} patches a side are no multiple "
                f"of {shuffle}"
            )

    @property
    def tokens_a_tile(self) -> int:
        """Tokens of one tile, and of a frame."""
        return (self.image_size // self.patch_size // self.shuffle) ** 2

    def tiles(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows of tiles, without the thumbnail that several have."""
        if self.max_tiles == 1:
            return 1, 1
        return nearest_canvas(width, height, self.image_size, self.min_tiles, self.max_tiles)

    def num_tiles(self, width: int, height: int) -> int:
        """Tiles of an image, the thumbnail among them."""
        columns, rows = self.tiles(width, height)
        return columns * rows + (columns * rows > 1)

    def tokens_of_image(self, width: int, height: int) -> int:
        return self.tokens_a_tile * self.num_tiles(width, height)

    def markers_of_image(self, width: int, height: int) -> int:
        return 2

    def tokens_of_step(self, width: int, height: int, num_frames: int = 1) -> int:
        return self.tokens_a_tile


VISIONS.add("internvl", InternVL())
