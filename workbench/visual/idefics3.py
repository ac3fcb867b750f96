"""Idefics3 and SmolVLM: an image in square tiles and as a whole, patches shuffled into tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.files import CONFIG, ImageFiles
from workbench.vocabulary.errors import RequestError

MOST_PIXELS = 4096
"""transformers' limit of the resized image's longer edge."""


@dataclass(frozen=True)
class Idefics3(FrontEnd):
    """The longer edge becomes ``longest_edge``, the image whole tiles, and itself one more tile.

    A frame of a video is one tile.
    """

    source: ClassVar[str] = (
        "https://huggingface.co/HuggingFaceM4/Idefics3-8B-Llama3 config.json and"
        " preprocessor_config.json; those of HuggingFaceTB/SmolVLM2-2.2B-Instruct and"
        " SmolVLM2-500M-Video-Instruct for SmolVLM2, as those of SmolDocling-256M-preview and"
        " granite-docling-258M; Idefics3ImageProcessor in transformers"
    )
    models: ClassVar[tuple[str, ...]] = (
        "idefics3-",
        "smolvlm2-",
        "smoldocling-",
        "granite-docling-",
    )
    of_models: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smolvlm2-2.2b": {"image_size": 384, "shuffle": 3, "longest_edge": 1536, "max_frames": 64},
        "smolvlm2-500m": {
            "image_size": 512,
            "patch_size": 16,
            "shuffle": 4,
            "longest_edge": 2048,
            "max_frames": 64,
        },
        "smolvlm2-256m": {
            "image_size": 512,
            "patch_size": 16,
            "shuffle": 4,
            "longest_edge": 2048,
            "max_frames": 64,
        },
        **{
            name: {"image_size": 512, "patch_size": 16, "shuffle": 4, "longest_edge": 2048}
            for name in ("smoldocling-256m", "granite-docling-258m")
        },
    }

    image_size: int = 364
    patch_size: int = 14
    shuffle: int = 2
    """Patches a side of a token, the scale_factor."""
    longest_edge: int = 4 * 364
    splits: bool = True
    """Whether an image is cut into tiles (do_image_splitting)."""

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") in ("idefics3", "smolvlm") and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        files.side("image_size", files.tower.get("image_size"), CONFIG)
        files.side("patch_size", files.tower.get("patch_size"), CONFIG)
        files.take("shuffle", files.config.get("scale_factor"), CONFIG)
        if files.images is not None:
            file, fields = files.images
            for setting, field in (("image_size", "max_image_size"), ("longest_edge", "size")):
                edge = fields.get(field)
                if edge is not None and not isinstance(edge, Mapping):
                    raise RequestError(
                        f"model {files.model!r}: {file}: {field} {edge!r:.60}: "
                        '{"longest_edge": pixels}'
                    )
                files.take(setting, None if edge is None else edge.get("longest_edge"), file)
            splits = fields.get("do_image_splitting")
            if isinstance(splits, bool):
                files.taken["splits"] = splits, file
            elif splits is not None:
                raise RequestError(
                    f"model {files.model!r}: {file}: do_image_splitting {splits!r:.60}: true or "
                    "false"
                )
        if files.videos is not None:
            file, fields = files.videos
            sampling = fields.get("video_sampling")
            if sampling is not None and not isinstance(sampling, Mapping):
                raise RequestError(
                    f"model {files.model!r}: {file}: video_sampling {sampling!r:.60}: an object "
                    "with max_frames"
                )
            files.take("max_frames", (sampling or {}).get("max_frames"), file)
        files.whole_patches(self.image_size, self.patch_size)
        size, patch, shuffle = (
            files.taken.get(name, (getattr(self, name),))[0]
            for name in ("image_size", "patch_size", "shuffle")
        )
        if size // patch % shuffle:
            raise RequestError(
                f"model {files.model!r}: {CONFIG}: scale_factor {shuffle}: {size // patch} "
                "patches a side are no multiple of it"
            )

    @property
    def tokens_a_tile(self) -> int:
        """Tokens of one tile, and of a frame."""
        return (self.image_size // self.patch_size // self.shuffle) ** 2

    def tiles(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows of tiles; none where the whole image is the only one."""
        if not self.splits:
            return 0, 0
        shape = width / height
        if width >= height:
            width, height = self.longest_edge, int(self.longest_edge / shape)
            height += height % 2
        else:
            width, height = int(self.longest_edge * shape), self.longest_edge
            width += width % 2
        width, height = max(width, 1), max(height, 1)
        shape = width / height
        if width >= height > 0 and width > MOST_PIXELS:
            width, height = MOST_PIXELS, int(MOST_PIXELS / shape)
        elif height > width and height > MOST_PIXELS:
            width, height = int(MOST_PIXELS * shape), MOST_PIXELS
        width, height = max(width, 1), max(height, 1)
        return self._whole(width, height)

    def _whole(self, width: int, height: int) -> tuple[int, int]:
        """The tiles of a resized image: the longer edge in whole tiles, then the other."""
        side, shape = self.image_size, width / height
        if width >= height:
            columns = ceil(width / side)
            rows = ceil(int(columns * side / shape) / side)
        else:
            rows = ceil(height / side)
            columns = ceil(int(rows * side * shape) / side)
        return (0, 0) if columns <= 1 and rows <= 1 else (columns, rows)

    def num_tiles(self, width: int, height: int) -> int:
        """Tiles of an image, the whole image among them."""
        columns, rows = self.tiles(width, height)
        return columns * rows + 1

    def tokens_of_image(self, width: int, height: int) -> int:
        return self.tokens_a_tile * self.num_tiles(width, height)

    def markers_of_image(self, width: int, height: int) -> int:
        """A pair before every tile, a line break a row, and those around the whole image."""
        columns, rows = self.tiles(width, height)
        return 3 + rows * (2 * columns + 1)

    def tokens_of_step(self, width: int, height: int, num_frames: int = 1) -> int:
        return self.tokens_a_tile


VISIONS.add("idefics3", Idefics3())
