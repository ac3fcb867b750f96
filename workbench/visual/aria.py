"""Aria: an image of any shape is one square of 980 pixels, 256 tokens, the rest of it masked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.files import BOTH, CONFIG, ImageFiles
from workbench.vocabulary.errors import RequestError

EDGE = 980
"""Pixels a side of the square: AriaProcessor's own setting."""
QUERIES = {1225: 128, 4900: 256}
"""Tokens by the number of patches, where config.json does not say (AriaConfig)."""


@dataclass(frozen=True)
class Aria(FrontEnd):
    """The longer edge fills the square; the shorter has at least ``shortest_edge`` of its pixels.

    That no image is cut and the square's size are AriaProcessor's own settings, which stand above
    the file of the image processor. A frame of a video is an image: it has no rule for them.
    """

    source: ClassVar[str] = (
        "https://huggingface.co/rhymes-ai/Aria config.json; AriaImageProcessor and AriaProcessor"
        " in transformers"
    )
    models: ClassVar[tuple[str, ...]] = ("aria",)
    resizes: ClassVar[bool] = True

    patch_size: int = 14
    shortest_edge: int = 336
    """The fewest pixels of an edge (min_image_size)."""
    tokens: int = 256
    """Queries that read the square's patches (projector_patch_to_query_dict)."""

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "aria" and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        patch = files.tower.get("patch_size")
        files.side("patch_size", 14 if patch is None else patch, CONFIG)
        side = EDGE // files.taken["patch_size"][0]
        stated = files.config.get("projector_patch_to_query_dict")
        queries = QUERIES if stated is None else stated if isinstance(stated, Mapping) else {}
        count = {str(patches): value for patches, value in queries.items()}.get(str(side**2))
        if count is None:
            raise RequestError(
                f"model {files.model!r}: {CONFIG}: projector_patch_to_query_dict "
                f"{stated!r:.60}: has no number of queries for the {side**2:,} patches of "
                f"{EDGE} pixels a side"
            )
        files.take("tokens", count, CONFIG)
        sizes = files.both.get("size_conversion")
        placed = sizes.get(str(EDGE)) if isinstance(sizes, Mapping) else None
        if placed is not None and placed != count:
            raise RequestError(
                f"model {files.model!r}: {BOTH}: size_conversion {sizes!r:.60}: its processor "
                f"puts {placed!r:.20} tokens for {EDGE} pixels, and the projector makes {count}"
            )
        if files.images is not None:
            file, fields = files.images
            least = fields.get("min_image_size")
            files.take("shortest_edge", least, file)
            if least is not None and files.taken["shortest_edge"][0] > EDGE:
                raise RequestError(
                    f"model {files.model!r}: {file}: min_image_size {least}: at most the {EDGE} "
                    "pixels of the square"
                )

    @property
    def side(self) -> int:
        """Patches a side of the square."""
        return EDGE // self.patch_size

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in pixels of the image within the square."""
        scale = EDGE / max(width, height)
        if width >= height:
            return EDGE, max(int(height * scale), self.shortest_edge)
        return max(int(width * scale), self.shortest_edge), EDGE

    def seen(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of patches in which there is any of the image."""
        wide, high = self.resized(width, height)
        rows, columns = (min(self.side, -(-edge // self.patch_size)) for edge in (high, wide))
        return rows, columns

    def tokens_of_image(self, width: int, height: int) -> int:
        return self.tokens


VISIONS.add("aria", Aria())
