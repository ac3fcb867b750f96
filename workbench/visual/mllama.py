"""Llama 3.2 Vision: an image in up to four tiles, each of its patches and a class token."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.canvas import MOST_TILES, canvas_of
from workbench.visual.files import CONFIG, ImageFiles
from workbench.vocabulary.errors import RequestError


@dataclass(frozen=True)
class Mllama(FrontEnd):
    """The canvas of tiles that enlarges an image least, or else shrinks it least.

    In the text one token stands for an image; |V| is what the cross-attention layers read of it.
    """

    source: ClassVar[str] = (
        "https://huggingface.co/meta-llama/Llama-3.2-11B-Vision-Instruct config.json and"
        " preprocessor_config.json"
    )
    models: ClassVar[tuple[str, ...]] = ("llama-3.2-11b-vision", "llama-3.2-90b-vision")

    image_size: int = 560
    patch_size: int = 14
    max_tiles: int = 4

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "mllama"

    def read(self, files: ImageFiles) -> None:
        files.side("image_size", files.tower.get("image_size"), CONFIG)
        files.side("patch_size", files.tower.get("patch_size"), CONFIG)
        files.take("max_tiles", files.tower.get("max_num_tiles"), CONFIG)
        if files.images is not None:
            file, fields = files.images
            files.side("image_size", fields.get("size"), file)
            files.take("max_tiles", fields.get("max_image_tiles"), file)
        files.whole_patches(self.image_size, self.patch_size)
        tiles, file = files.taken.get("max_tiles", (self.max_tiles, CONFIG))
        if tiles > MOST_TILES:
            raise RequestError(
                f"model {files.model!r}: {file}: max_tiles {tiles}: at most {MOST_TILES}"
            )

    @property
    def tokens_a_tile(self) -> int:
        """Patches of a tile and its class token."""
        return (self.image_size // self.patch_size) ** 2 + 1

    def canvas(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return canvas_of(width, height, self.image_size, self.max_tiles)

    def tokens_of_image(self, width: int, height: int) -> int:
        rows, columns = self.canvas(width, height)
        return rows * columns * self.tokens_a_tile

    def markers_of_image(self, width: int, height: int) -> int:
        return 1


VISIONS.add("mllama", Mllama())
