"""Command A Vision: tiles of 512 pixels and the whole image beside several, 256 tokens each."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.visual import VISIONS
from workbench.visual.aya_vision import AyaVision
from workbench.visual.canvas import MOST_TILES, canvas_of
from workbench.visual.files import ImageFiles
from workbench.vocabulary.errors import RequestError


@dataclass(frozen=True)
class Cohere2Vision(AyaVision):
    """The canvas of tiles that enlarges an image least, or else shrinks it least."""

    source: ClassVar[str] = (
        "https://huggingface.co/CohereLabs/command-a-vision-07-2025 config.json;"
        " Cohere2VisionImageProcessor in transformers"
    )
    models: ClassVar[tuple[str, ...]] = ("command-a-vision",)
    kind: ClassVar[str] = "cohere2_vision"

    image_size: int = 512
    patch_size: int = 16

    def read(self, files: ImageFiles) -> None:
        super().read(files)
        if files.images is None:
            return
        file, fields = files.images
        tiled = fields.get("crop_to_patches")
        if tiled not in (None, True, False):
            raise RequestError(
                f"model {files.model!r}: {file}: crop_to_patches {tiled!r:.60}: true or false"
            )
        if tiled is False:
            files.taken["max_tiles"] = 1, file
        most = files.taken.get("max_tiles", (self.max_tiles,))[0]
        if most > MOST_TILES:
            raise RequestError(
                f"model {files.model!r}: {file}: max_patches {most}: at most {MOST_TILES}"
            )
        side, patch, shuffle = (
            files.taken[name][0] for name in ("image_size", "patch_size", "shuffle")
        )
        rows = fields.get("patch_size")
        if rows is not None and rows != side // patch // shuffle:
            raise RequestError(
                f"model {files.model!r}: {file}: patch_size {rows!r:.60}: its processor puts so "
                f"many tokens in a row of a tile, and the tower makes {side // patch // shuffle}"
            )

    def tiles(self, width: int, height: int) -> tuple[int, int]:
        rows, columns = canvas_of(width, height, self.image_size, self.max_tiles)
        return columns, rows


VISIONS.add("cohere2-vision", Cohere2Vision())
