"""What the front ends of Qwen's families share: native resolution, rounded to whole tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor, sqrt
from typing import Any, ClassVar

from workbench.visual import FrontEnd
from workbench.visual.files import ImageFiles
from workbench.vocabulary.errors import RequestError

MAX_RATIO = 200
"""Of the longer to the shorter edge."""
UNSAID = {"min": 56 * 56, "max": 28 * 28 * 1280}
"""Pixels of Qwen2VLImageProcessor in transformers, where a file gives it none."""


@dataclass(frozen=True)
class QwenVL(FrontEnd):
    """A token is ``merge_size`` × ``merge_size`` patches, and ``temporal_patch_size`` frames.

    What ``video_min_pixels`` and ``video_max_pixels`` count, a frame or a whole video, is the
    subclass's.
    """

    model_type: ClassVar[str]
    """Of the config.json that it serves."""
    unsaid: ClassVar[Mapping[str, int]] = UNSAID
    """Pixels of the family's image processor there, where a file gives it none."""
    unsaid_video: ClassVar[Mapping[str, int]]
    """Pixels of the family's video processor in transformers, where a file gives it none."""
    joins_frames: ClassVar[bool] = True
    """Whether the family's tower reads a ``temporal_patch_size``; else a file's says nothing."""
    video_own: ClassVar[tuple[str, ...]] = ()
    """Sizes of patches and tokens that video has of its own, as settings ``video_…``."""

    max_frames: int | None = 768
    min_frames: int = 4
    patch_size: int = 14
    merge_size: int = 2
    temporal_patch_size: int = 2
    min_pixels: int = 3_136
    max_pixels: int = 12_845_056
    video_min_pixels: int = 3_136
    video_max_pixels: int = 12_845_056

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == self.model_type and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        tower = files.tower
        files.take("patch_size", tower.get("patch_size"), "config.json")
        files.take("merge_size", tower.get("spatial_merge_size"), "config.json")
        if self.joins_frames:
            together = tower.get("temporal_patch_size")
            files.take("temporal_patch_size", together, "config.json")
        for prefix, section, unsaid in (
            ("", files.images, self.unsaid),
            ("video_", files.videos, self.unsaid_video),
        ):
            if section is None:
                continue
            file, fields = section
            size = fields.get("size")
            if size is not None and not isinstance(size, Mapping):
                raise RequestError(
                    f"model {files.model!r}: {file}: size {size!r:.60}: "
                    '{"shortest_edge": pixels, "longest_edge": pixels} is known'
                )
            for end, edge in (("min", "shortest_edge"), ("max", "longest_edge")):
                field = f"{end}_pixels"
                stated = (fields.get(field), *map((size or {}).get, (edge, field)))
                value = next((number for number in stated if number is not None), None)
                if not files.take(f"{prefix}{field}", value, file):
                    origin = f"transformers' default: {file} does not say"
                    files.take(f"{prefix}{field}", unsaid[end], origin)
            for name in ("patch_size", "merge_size", "temporal_patch_size"):
                own = f"{prefix}{name}" if name in self.video_own else name
                files.take(own, fields.get(name), file)
            if prefix:
                files.take("min_frames", fields.get("min_frames"), file)
                files.take("max_frames", fields.get("max_frames"), file)

    @property
    def factor(self) -> int:
        """Pixels a side of a token."""
        return self.patch_size * self.merge_size

    @property
    def min_tokens(self) -> int:
        """Tokens of the smallest image."""
        return max(1, self.min_pixels // self.factor**2)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) that the tower sees: whole tokens within the pixel limits."""
        return self.fitted(width, height, self.min_pixels, self.max_pixels)

    def resized_frame(self, width: int, height: int, num_frames: int) -> tuple[int, int]:
        """The same for each of ``num_frames`` frames of a video."""
        raise NotImplementedError

    def fitted(
        self, width: int, height: int, least: int, most: int, times: tuple[int, int] = (1, 1)
    ) -> tuple[int, int]:
        """Whole tokens near that size, of ``least`` to ``most`` pixels in all.

        ``times`` are the frames that share them, as they were sampled and in whole steps.
        """
        if max(width, height) > MAX_RATIO * min(width, height):
            raise RequestError(
                f"resolution {width}x{height}: {self.name} takes edges of up to {MAX_RATIO} to 1"
            )
        factor, (frames, whole) = self.factor, times
        # round() is to even at .5, as in the checkpoint's own processor.
        pixels = round(width / factor) * round(height / factor) * factor**2 * whole
        if pixels > most:
            shrink = sqrt(frames * width * height / most)
            edges = [max(1, floor(edge / shrink / factor)) for edge in (width, height)]
        elif pixels < least:
            grow = sqrt(least / (frames * width * height))
            edges = [ceil(edge * grow / factor) for edge in (width, height)]
        else:
            edges = [round(edge / factor) for edge in (width, height)]
        return edges[0] * factor, edges[1] * factor

    def tokens_of_image(self, width: int, height: int) -> int:
        resized = self.resized(width, height)
        return resized[0] * resized[1] // self.factor**2

    def tokens_of_step(self, width: int, height: int, num_frames: int = 1) -> int:
        resized = self.resized_frame(width, height, num_frames)
        return resized[0] * resized[1] // self.factor**2

    def steps(self, num_frames: int) -> int:
        return ceil(num_frames / self.temporal_patch_size)

    def sampled(self, total_frames: int, native_fps: float, fps: float) -> int:
        together = self.temporal_patch_size
        most = floor(min(self.max_frames or total_frames, total_frames) / together) * together
        frames = min(max(total_frames / native_fps * fps, self.min_frames), most)
        whole = max(1, floor(frames / together) * together)
        # torch.arange in its processor ends one later where this quotient was rounded down.
        return ceil(total_frames / (total_frames / whole))

    def notes(self, width: int, height: int, num_frames: int) -> list[str]:
        if num_frames > (self.max_frames or num_frames):
            return [f"its processor samples at most {self.max_frames:,} frames of a video"]
        return []
