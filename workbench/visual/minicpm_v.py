"""MiniCPM-V 4.6 and 4.7: an image scaled to the area of 448 × 448, and slices of a larger one."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log, sqrt
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.files import CONFIG, ImageFiles
from workbench.vocabulary.errors import RequestError

MERGED = {"16x": 4, "4x": 2}
"""Patches a side of a token, by ``downsample_mode``."""
MOST_SLICES = 10_000
KINDS = ("minicpmv4_6", "minicpmv4_7")


@dataclass(frozen=True)
class MiniCPMV(FrontEnd):
    """The whole image comes first, then its slices row by row; a frame is sliced as an image is.

    A size is called (height, width), in pixels or in patches.
    """

    source: ClassVar[str] = (
        "the defaults of MiniCPMV4_6ImageProcessor and MiniCPMV4_6VideoProcessor in transformers,"
        " which MiniCPM-V 4.7 has too; patch_size of https://huggingface.co/openbmb/MiniCPM-V-4.6"
        " config.json"
    )
    models: ClassVar[tuple[str, ...]] = ("minicpm-v-",)

    patch_size: int = 14
    downsample: str = "16x"
    scale: int = 448
    """The side of the square that an image and a slice have the area of (scale_resolution)."""
    max_slices: int = 9
    video_scale: int = 448
    video_max_slices: int = 9
    max_frames: int | None = 128

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") in KINDS and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        files.side("patch_size", files.tower.get("patch_size"), CONFIG)
        self._take_mode(files, files.config.get("downsample_mode"), CONFIG)
        for section, prefix in ((files.images, ""), (files.videos, "video_")):
            if section is None:
                continue
            file, fields = section
            files.side("patch_size", fields.get("patch_size"), file)
            self._take_mode(files, fields.get("downsample_mode"), file)
            files.take(f"{prefix}scale", fields.get("scale_resolution"), file)
            files.take(f"{prefix}max_slices", fields.get("max_slice_nums"), file)
            slices = files.taken.get(f"{prefix}max_slices", (self.max_slices, file))[0]
            if slices > MOST_SLICES:
                raise RequestError(
                    f"model {files.model!r}: {file}: max_slice_nums {slices}: at most "
                    f"{MOST_SLICES:,}"
                )
            whole = fields.get("slice_mode")
            if whole is False:
                files.taken[f"{prefix}max_slices"] = 1, file
            elif whole is not None and whole is not True:
                raise RequestError(
                    f"model {files.model!r}: {file}: slice_mode {whole!r:.60}: true or false"
                )
            stacked = fields.get("stack_frames")
            if stacked not in (None, 1):
                raise RequestError(
                    f"model {files.model!r}: {file}: stack_frames {stacked!r:.60}: only 1 is known"
                )
            if prefix:
                files.take("max_frames", fields.get("max_num_frames"), file)

    def _take_mode(self, files: ImageFiles, mode: object, file: str) -> None:
        """Take the tower's mode; RequestError for one that nothing knows, or that is another's."""
        if mode is None:
            return
        if not isinstance(mode, str) or mode not in MERGED:
            raise RequestError(
                f"model {files.model!r}: {file}: downsample_mode {mode!r:.60}: "
                f"{' or '.join(MERGED)}"
            )
        if file == CONFIG:
            files.taken["downsample"] = mode, file
        own = files.taken.get("downsample", (self.downsample,))[0]
        if mode != own:
            raise RequestError(
                f"model {files.model!r}: {file}: downsample_mode {mode}, but the tower of "
                f"{CONFIG} has {own}"
            )

    @property
    def merged(self) -> int:
        """Patches a side of a token."""
        return MERGED[self.downsample]

    def slices(self, width: int, height: int, video: bool = False) -> tuple[int, int] | None:
        """Rows and columns of slices, whose shape is nearest the image's; None of a small one."""
        scale, most = self.limits(video)
        count = min(ceil(width * height / (scale * scale)), most)
        if count <= 1:
            return None
        shape = log(width / height)
        numbers = [n for n in (count - 1, count, count + 1) if 1 < n <= most]
        grids = [(r, n // r) for n in numbers for r in range(1, n + 1) if n % r == 0]
        return min(grids, key=lambda g: (abs(shape - log(g[1] / g[0])), -g[0]))

    def whole(self, width: int, height: int, video: bool = False) -> tuple[int, int]:
        """The patches of the whole image, which no slice enlarges where it has none."""
        larger = width * height > self.limits(video)[0] ** 2
        fit = larger or self.slices(width, height, video) is None
        return self._patches(width, height, fit, video)

    def slice(
        self, width: int, height: int, grid: tuple[int, int], video: bool = False
    ) -> tuple[int, int]:
        """The patches of each slice of an image in so many rows and columns."""
        high, wide = (_whole(side, n) / n for side, n in zip((height, width), grid, strict=True))
        return self._patches(wide, high, True, video)

    def limits(self, video: bool) -> tuple[int, int]:
        """The side of the square and the most slices, of an image or of a frame."""
        if video:
            return self.video_scale, self.video_max_slices
        return self.scale, self.max_slices

    def _patches(self, width: float, height: float, fit: bool, video: bool) -> tuple[int, int]:
        """Patches of a picture, which gets the area of the square where it is to ``fit``."""
        if fit:
            shape = width / height
            height = int(self.limits(video)[0] / sqrt(shape))
            width = int(height * shape)
        unit = self.patch_size * self.merged
        return _whole(height, unit) // self.patch_size, _whole(width, unit) // self.patch_size

    def tokens_of_step(self, width: int, height: int, num_frames: int = 1) -> int:
        return self._tokens(width, height, True)

    def tokens_of_image(self, width: int, height: int) -> int:
        return self._tokens(width, height, False)

    def _tokens(self, width: int, height: int, video: bool) -> int:
        rows, columns = self.whole(width, height, video)
        patches, grid = rows * columns, self.slices(width, height, video)
        if grid is not None:
            rows, columns = self.slice(width, height, grid, video)
            patches += grid[0] * grid[1] * rows * columns
        return patches // self.merged**2

    def markers_of_image(self, width: int, height: int) -> int:
        """The image's number and its pair, a pair for every slice, a line break between rows."""
        rows, columns = self.slices(width, height) or (0, 0)
        return 5 + 2 * rows * columns + max(0, rows - 1)

    def notes(self, width: int, height: int, num_frames: int) -> list[str]:
        if not num_frames:
            return []
        return [
            f"its processor writes two markers around each of the {num_frames:,} frames and each "
            "of their slices, tokens of text, which are none of |V|; asked for no rate it takes "
            f"one frame a second, and of a video beyond {self.max_frames} s so many in all"
        ]


def _whole(length: float, unit: int) -> int:
    """The multiple of a unit that is nearest, one at least."""
    return max(round(length / unit), 1) * unit


VISIONS.add("minicpm-v", MiniCPMV())
