"""Phi-4-multimodal: crops of 448 pixels of an image and the whole of it once, a newline a row."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.files import CONFIG, ImageFiles
from workbench.vocabulary.errors import RequestError

SMALLEST = 10
"""Pixels that the shorter edge of the scaled image has at least; the processor refuses fewer."""
MOST_CROPS = 256


@dataclass(frozen=True)
class Phi4Multimodal(FrontEnd):
    """Patches are pooled 2 × 2 into a token; those of padding alone are left out.

    An image is scaled into as many crops as cover its own pixels; where these are too many, into
    the grid of crops whose shape is nearest. Padding is below or to the right of it.
    """

    source: ClassVar[str] = (
        "Phi4MultimodalImageProcessor and Phi4MultimodalImageEmbedding in transformers"
    )
    models: ClassVar[tuple[str, ...]] = ("phi-4-multimodal",)

    image_size: int = 448
    patch_size: int = 14
    max_crops: int = 36

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "phi4_multimodal" and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        # What a section leaves out are the defaults of transformers' class: the published ones.
        for name in ("image_size", "patch_size"):
            stated = files.tower.get(name)
            files.side(name, getattr(self, name) if stated is None else stated, CONFIG)
        side = files.taken["image_size"][0]
        crop = files.tower.get("crop_size", self.image_size)
        if crop != side:
            raise RequestError(
                f"model {files.model!r}: {CONFIG}: crop_size {crop!r:.60}, but image_size {side}: "
                "the tower takes one size"
            )
        if files.images is not None:
            file, fields = files.images
            files.side("image_size", fields.get("size"), file)
            files.side("patch_size", fields.get("patch_size"), file)
            crops: Any = fields.get("dynamic_hd")
            if files.take("max_crops", crops, file) and crops > MOST_CROPS:
                raise RequestError(
                    f"model {files.model!r}: {file}: dynamic_hd {crops}: at most {MOST_CROPS}"
                )
        files.whole_patches(self.image_size, self.patch_size)

    @property
    def side(self) -> int:
        """Patches a side of a crop."""
        return self.image_size // self.patch_size

    @property
    def tokens_a_side(self) -> int:
        """Tokens a side of a crop."""
        return ceil(self.side / 2)

    def crops(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows of crops, without the whole image that comes beside them."""
        columns, rows = ceil(width / self.image_size), ceil(height / self.image_size)
        if columns * rows <= self.max_crops:
            return columns, rows
        best, nearest, shape = (1, 1), float("inf"), width / height
        numbers = range(1, self.max_crops + 1)
        grids = [(c, r) for c in numbers for r in numbers if c * r <= self.max_crops]
        for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
            away = abs(shape - columns / rows)
            # Of grids of one shape the larger, up to twice the image's own pixels.
            large = width * height > 0.5 * self.image_size**2 * columns * rows
            if away < nearest or (away == nearest and large):
                best, nearest = (columns, rows), away
        return best

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Pixels across and down of an image on its crops, whose shape it keeps.

        Raises RequestError for an image too narrow for its processor.
        """
        columns, rows = self.crops(width, height)
        wide, high = columns * self.image_size, rows * self.image_size
        across, down = wide / width, high / height
        scaled = (wide, int(height * across)) if across < down else (int(width * down), high)
        if min(scaled) < SMALLEST:
            raise RequestError(
                f"image {width}x{height}: scaled to {scaled[0]}x{scaled[1]} pixels, and its "
                f"processor takes none with an edge below {SMALLEST}"
            )
        return scaled

    def patches(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of patches that are not of padding alone, of all crops; raises so."""
        columns, rows = self.crops(width, height)
        across, down = self.scaled(width, height)
        # A partly covered patch stays, as do the rest pixels of a crop that fill no patch.
        return (
            rows * self.side - (rows * self.image_size - down) // self.patch_size,
            columns * self.side - (columns * self.image_size - across) // self.patch_size,
        )

    def kept(self, patches: int) -> int:
        """Rows of tokens that are made of so many rows of patches; columns alike."""
        crops, rest = divmod(patches, self.side)
        return crops * self.tokens_a_side + ceil(rest / 2)

    def tokens_of_image(self, width: int, height: int) -> int:
        rows, columns = map(self.kept, self.patches(width, height))
        side = self.tokens_a_side
        return rows * (columns + 1) + 1 + side * (side + 1)


VISIONS.add("phi-4-multimodal", Phi4Multimodal())
