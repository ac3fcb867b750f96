"""Molmo 2: overlapping crops of 378 pixels of an image and the whole of it once, pooled 2 × 2."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.canvas import MOST_TILES, canvas_of
from workbench.visual.files import CONFIG, ImageFiles
from workbench.visual.llama4 import single
from workbench.vocabulary.errors import RequestError

NOTHING = 1e-30
"""Stands for a window without pixels, by which its processor divides."""


def section_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tower's section of a config.json, by either of its names; empty where there is none."""
    for name in ("vision_config", "vit_config"):
        if isinstance(config.get(name), Mapping):
            section: Mapping[str, Any] = config[name]
            return section
    return {}


@dataclass(frozen=True)
class Molmo2(FrontEnd):
    """Neighbouring crops share a margin; a frame of a video is whole and pooled 3 × 3.

    The canvas of crops is the one that enlarges an image least, or else shrinks it least. Text
    stands around each view and, as a token of its own, behind each of its rows; between frames
    stand their times.
    """

    source: ClassVar[str] = (
        "the defaults of Molmo2ImageProcessor, Molmo2VideoProcessor and Molmo2Processor in"
        " transformers"
    )
    models: ClassVar[tuple[str, ...]] = ("molmo2",)

    max_frames: int | None = 64
    image_size: int = 378
    patch_size: int = 14
    max_crops: int = 8
    margin_before: int = 4
    """Patches at the left and top of a crop that the crop before it has too."""
    margin_behind: int = 4
    """Patches at its right and bottom that the next one has."""
    pool: int = 2
    """Patches a side of a token of an image."""
    frame_pool: int = 3
    """Those of a token of a frame."""

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "molmo2" and bool(section_of(config))

    def read(self, files: ImageFiles) -> None:
        tower = section_of(files.config)
        for name, old in (
            ("image_size", "image_default_input_size"),
            ("patch_size", "image_patch_size"),
        ):
            # What a section leaves out are the defaults of transformers' class: the published.
            files.side(name, tower.get(old, tower.get(name, getattr(self, name))), CONFIG)
        if files.images is not None:
            file, fields = files.images
            files.side("image_size", fields.get("size"), file)
            files.side("patch_size", fields.get("patch_size"), file)
            files.side("pool", fields.get("pooling_size"), file)
            files.take("max_crops", fields.get("max_crops"), file)
            margins = fields.get("overlap_margins")
            if margins is not None:
                both = margins if isinstance(margins, list) and len(margins) == 2 else [margins]
                for name, value in zip(("margin_before", "margin_behind"), both, strict=False):
                    files.take(name, value, file, 0)
        if files.videos is not None and files.videos[1] is not (files.images or ("", None))[1]:
            file, fields = files.videos
            files.side("frame_pool", fields.get("pooling_size"), file)
            files.take("max_frames", fields.get("num_frames"), file)
        files.whole_patches(self.image_size, self.patch_size)
        self._check(files)

    def _check(self, files: ImageFiles) -> None:
        """Raise RequestError for crops that make no sense together."""
        crops, before, behind, edge, patch = (
            files.taken.get(name, (getattr(self, name),))[0]
            for name in (
                "max_crops",
                "margin_before",
                "margin_behind",
                "image_size",
                "patch_size",
            )
        )
        if crops > MOST_TILES:
            raise RequestError(f"model {files.model!r}: max_crops {crops}: at most {MOST_TILES}")
        if before + behind >= edge // patch:
            raise RequestError(
                f"model {files.model!r}: overlap_margins [{before}, {behind}]: a crop has "
                f"{edge // patch} patches a side, and some of its own"
            )

    @property
    def side(self) -> int:
        """Patches a side of a crop."""
        return self.image_size // self.patch_size

    @property
    def window(self) -> int:
        """Patches a side by which a crop lies behind the one before it."""
        return self.side - self.margin_before - self.margin_behind

    def crops(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of crops, without the whole image that comes before them."""
        margin = (self.margin_before + self.margin_behind) * self.patch_size
        edge = self.window * self.patch_size
        across, down = (side - margin or NOTHING for side in (width, height))
        return canvas_of(across, down, edge, self.max_crops, single)

    def patches(self, crops: int) -> int:
        """Patches a side of so many crops side by side, shared ones once."""
        return crops * self.window + self.margin_before + self.margin_behind

    def tokens_of_image(self, width: int, height: int) -> int:
        rows, columns = (ceil(self.patches(n) / self.pool) for n in self.crops(width, height))
        return ceil(self.side / self.pool) ** 2 + rows * columns

    def markers_of_image(self, width: int, height: int) -> int:
        rows, _ = self.crops(width, height)
        ends = ceil(self.side / self.pool) + ceil(self.patches(rows) / self.pool)
        return ends + 4  # Beginning and end of both views.

    def tokens_of_step(self, width: int, height: int, num_frames: int = 1) -> int:
        return ceil(self.side / self.frame_pool) ** 2

    def sampled(self, total_frames: int, native_fps: float, fps: float) -> int:
        """As its processor's ``sample_frames`` does with ``fps`` as the most a second."""
        frames = min(int(total_frames / native_fps * fps), total_frames, self.max_frames or 1)
        return ceil(total_frames / (total_frames / max(1, frames)))


VISIONS.add("molmo2", Molmo2())
