"""Kimi K2.5: images at their own size, 2 × 2 patches a token; four frames of a video share it."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.files import CONFIG, ImageFiles
from workbench.vocabulary.errors import RequestError


@dataclass(frozen=True)
class KimiK25(FrontEnd):
    """An image beyond the limits is scaled down, none is scaled up; the rest is padding, which the
    tower sees."""

    source: ClassVar[str] = (
        "the defaults of Kimi_K25ImageProcessor and Kimi_K25VideoProcessor in transformers, made"
        " for https://huggingface.co/moonshotai/Kimi-K2.6"
    )
    models: ClassVar[tuple[str, ...]] = ("kimi-k2.",)

    patch_size: int = 14
    merge: int = 2
    """Patches a side of a token."""
    max_side: int = 512
    """Patches along an edge at most."""
    max_patches: int = 16384
    video_max_side: int = 512
    video_max_patches: int = 4096
    temporal: int = 4
    """Frames that share their tokens."""

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "kimi_k25" and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        files.side("patch_size", files.tower.get("patch_size"), CONFIG)
        files.side("merge", files.tower.get("merge_kernel_size"), CONFIG)
        for section, prefix in ((files.images, ""), (files.videos, "video_")):
            if section is None:
                continue
            file, fields = section
            files.side("patch_size", fields.get("patch_size"), file)
            files.take("merge", fields.get("merge_size"), file)
            files.take(f"{prefix}max_patches", fields.get("max_patches"), file)
            size = fields.get("size")
            if size is not None and not (
                isinstance(size, Mapping)
                and size.get("max_height") == size.get("max_width") is not None
            ):
                raise RequestError(
                    f"model {files.model!r}: {file}: size {size!r:.60}: max_height and max_width, "
                    "the same number of patches"
                )
            files.take(f"{prefix}max_side", (size or {}).get("max_height"), file)
            if prefix:
                files.take("temporal", fields.get("temporal_patch_size"), file)

    def scaled(self, width: int, height: int, video: bool = False) -> tuple[int, int]:
        """Width and height of an image or a frame within the limits, in pixels."""
        patch, edge = self.patch_size, self.patch_size * self.max_side
        most = self.max_patches
        if video:
            edge, most = patch * self.video_max_side, self.video_max_patches
        patches = max(1.0, height // patch) * max(1.0, width // patch)
        scale = min(1.0, sqrt(most / patches), edge / height, edge / width)
        wide, high = (min(max(1, int(length * scale)), edge) for length in (width, height))
        return wide, high

    def grid(self, width: int, height: int, video: bool = False) -> tuple[int, int]:
        """Rows and columns of patches of an image or a frame, padding among them."""
        unit = self.patch_size * self.merge
        wide, high = self.scaled(width, height, video)
        return ceil(high / unit) * self.merge, ceil(wide / unit) * self.merge

    def tokens_of_image(self, width: int, height: int) -> int:
        rows, columns = self.grid(width, height)
        return rows * columns // self.merge**2

    def tokens_of_step(self, width: int, height: int, num_frames: int = 1) -> int:
        rows, columns = self.grid(width, height, video=True)
        return rows * columns // self.merge**2

    def steps(self, num_frames: int) -> int:
        return ceil(num_frames / self.temporal)

    def notes(self, width: int, height: int, num_frames: int) -> list[str]:
        if not num_frames:
            return []
        return [
            f"its processor writes a time stamp and markers around each {self.temporal} frames, "
            "tokens of text, which are none of |V|; asked for no rate it samples two frames a "
            "second"
        ]


VISIONS.add("kimi-k2.5", KimiK25())
