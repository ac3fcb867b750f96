"""PerceptionLM: up to 36 tiles of 448 pixels and the whole image, 2 × 2 patches a token."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import floor
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.canvas import MOST_TILES
from workbench.visual.files import BOTH, CONFIG, ImageFiles
from workbench.vocabulary.errors import RequestError

TILED = "thumb+tile"


@dataclass(frozen=True)
class PerceptionLM(FrontEnd):
    """An image is stretched to the canvas of tiles that enlarges its shorter edge most.

    One that no canvas holds is stretched to the canvas whose shape is nearest. A frame of a video
    is one tile.
    """

    source: ClassVar[str] = (
        "PerceptionLMImageProcessor and PerceptionLMProcessor in transformers, and its conversion"
        " script (convert_perception_lm_weights_to_hf.py)"
    )
    models: ClassVar[tuple[str, ...]] = ("perception-lm-",)

    image_size: int = 448
    patch_size: int = 14
    pooling: int = 2
    """Patches a side of a token."""
    max_tiles: int = 36
    tiled: bool = True
    """Whether tiles come beside the whole image."""

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "perception_lm" and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        files.take("pooling", files.config.get("projector_pooling_ratio", 1), CONFIG)
        files.take("pooling", files.both.get("pooling_ratio"), BOTH)
        files.take("patch_size", files.both.get("patch_size"), BOTH)
        arguments = files.tower.get("model_args")
        if isinstance(arguments, Mapping):
            files.side("image_size", arguments.get("img_size"), CONFIG)
        if files.images is None:
            return
        file, fields = files.images
        files.side("image_size", fields.get("tile_size"), file)
        tiles: Any = fields.get("max_num_tiles")
        if files.take("max_tiles", tiles, file) and tiles > MOST_TILES:
            raise RequestError(
                f"model {files.model!r}: {file}: max_num_tiles {tiles}: at most {MOST_TILES}"
            )
        kind = fields.get("vision_input_type")
        if kind is not None:
            files.taken["tiled"] = kind == TILED, file
        files.whole_patches(self.image_size, self.patch_size)

    @property
    def tokens_a_side(self) -> int:
        """Tokens a side of a tile."""
        return self.image_size // self.patch_size // self.pooling

    def _canvases(self) -> Iterator[tuple[int, int]]:
        """Columns and rows, those of one shape together, as its processor comes upon them."""
        shapes: dict[float, list[tuple[int, int]]] = {}
        for tiles in range(self.max_tiles, 0, -1):
            for columns in range(1, tiles + 1):
                if tiles % columns == 0:
                    rows = tiles // columns
                    shapes.setdefault(columns / rows, []).append((columns, rows))
        return (canvas for alike in shapes.values() for canvas in alike)

    def canvas(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows of tiles, without the whole image beside them."""
        edge, shape = self.image_size, width / height
        best, longest = None, 0.0
        for columns, rows in self._canvases():
            if columns * edge < width or rows * edge < height:
                continue
            factor = min(columns * edge / width, rows * edge / height)
            if shape > 1:
                shorter: float = floor(factor * width / shape)
            elif shape < 1:
                shorter = floor(factor * height * shape)
            else:
                shorter = factor * height
            if best is None or shorter >= longest:  # Of those alike the last.
                best, longest = (columns, rows), shorter
        return best or self._nearest(shape)

    def _nearest(self, shape: float) -> tuple[int, int]:
        """The largest canvas of the nearest shape that is no wider, of an upright image wider."""
        shapes = [columns / rows for columns, rows in self._canvases()]
        if shape >= 1:
            nearest = max(each for each in shapes if each <= shape)
        else:
            nearest = min(each for each in shapes if each > shape)
        alike = (canvas for canvas in self._canvases() if canvas[0] / canvas[1] == nearest)
        return max(alike)

    def num_tiles(self, width: int, height: int) -> int:
        """Squares of an image, the whole one among them."""
        if not self.tiled:
            return 1
        columns, rows = self.canvas(width, height)
        return columns * rows + 1

    def tokens_of_image(self, width: int, height: int) -> int:
        return self.tokens_a_side**2 * self.num_tiles(width, height)

    def tokens_of_step(self, width: int, height: int, num_frames: int = 1) -> int:
        return self.tokens_a_side**2


VISIONS.add("perception-lm", PerceptionLM())
