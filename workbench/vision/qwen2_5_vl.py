"""Qwen2.5-VL: native resolution, rounded to 28 pixels, and pairs of frames in one step."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor, sqrt
from typing import Any, ClassVar

from workbench.errors import RequestError
from workbench.vision import VISIONS, FrontEnd
from workbench.vision.files import Found

MAX_RATIO = 200
UNSAID = {"min": 56 * 56, "max": 28 * 28 * 1280}
"""Pixels of Qwen2VLImageProcessor in transformers, where a file gives it none."""
UNSAID_VIDEO = {"min": 128 * 28 * 28, "max": 28 * 28 * 768}
"""Of its Qwen2VLVideoProcessor."""
CONTEXT, SHARE = 128_000, 0.9
"""The reference pipeline's context in tokens, and the share of it that one video may take."""


@dataclass(frozen=True)
class Qwen25VL(FrontEnd):
    """A token is 2 × 2 patches of 14 pixels, and 2 frames of a video.

    ``max_video_pixels`` is a budget that all frames of a video share, as transformers'
    ``cap_pixels_per_frame`` and qwen-vl-utils have it; without it each frame has ``max_pixels``.
    """

    source: ClassVar[str] = (
        "https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct preprocessor_config.json (min_pixels,"
        " max_pixels), read by transformers for images and for video; 4 to 768 frames: its video"
        " processor"
    )
    models: ClassVar[tuple[str, ...]] = ("qwen2.5-vl",)

    max_frames: int | None = 768
    min_frames: int = 4
    patch_size: int = 14
    merge_size: int = 2
    temporal_patch_size: int = 2
    min_pixels: int = 3_136
    max_pixels: int = 12_845_056
    video_min_pixels: int = 3_136
    video_max_pixels: int = 12_845_056
    max_video_pixels: int | None = None

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "qwen2_5_vl" and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, found: Found) -> None:
        tower = found.tower
        found.take("patch_size", tower.get("patch_size"), "config.json")
        found.take("merge_size", tower.get("spatial_merge_size"), "config.json")
        found.take("temporal_patch_size", tower.get("temporal_patch_size"), "config.json")
        for prefix, section, unsaid in (
            ("", found.images, UNSAID), ("video_", found.videos, UNSAID_VIDEO),
        ):  # fmt: skip
            if section is None:
                continue
            file, fields = section
            size = fields.get("size")
            size = size if isinstance(size, Mapping) else {}
            for end, edge in (("min", "shortest_edge"), ("max", "longest_edge")):
                named = f"{end}_pixels"
                value = fields.get(named, size.get(edge, size.get(named)))
                if not found.take(f"{prefix}{named}", value, file):
                    origin = f"transformers' default: {file} does not say"
                    found.take(f"{prefix}{named}", unsaid[end], origin)
            for name in ("patch_size", "merge_size", "temporal_patch_size"):
                found.take(name, fields.get(name), file)
            if prefix:
                found.take("min_frames", fields.get("min_frames"), file)
                found.take("max_frames", fields.get("max_frames"), file)
        if found.videos is not None and found.videos[1].get("cap_pixels_per_frame") is True:
            file, fields = found.videos
            context = fields.get("max_video_tokens", CONTEXT)
            if found.take("max_video_pixels", context, file):
                merge, patch = (
                    found.taken[name][0] if name in found.taken else getattr(self, name)
                    for name in ("merge_size", "patch_size")
                )
                pixels = int(context * (merge * patch) ** 2 * SHARE)
                found.taken["max_video_pixels"] = pixels, file

    def changes(self, limit: str, value: int) -> dict[str, Any] | None:
        if limit in ("min_pixels", "max_pixels"):
            return {limit: value, f"video_{limit}": value}
        if limit == "max_video_tokens":
            return {"max_video_pixels": value * self.factor**2}
        return super().changes(limit, value)

    @property
    def factor(self) -> int:
        """Pixels a side of a token."""
        return self.patch_size * self.merge_size

    @property
    def min_tokens(self) -> int:
        """Tokens of the smallest image."""
        return self.min_pixels // self.factor**2

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) that the tower sees: multiples of 28 within the pixel limits."""
        return self._resized(width, height, self.min_pixels, self.max_pixels)

    def resized_frame(self, width: int, height: int, num_frames: int) -> tuple[int, int]:
        """The same for each of ``num_frames`` frames of a video, which may share a budget."""
        return self._resized(width, height, self.video_min_pixels, self.most_of_frame(num_frames))

    def most_of_frame(self, num_frames: int) -> int:
        """Pixels of each of so many frames of a video at most."""
        if self.max_video_pixels is None:
            return self.video_max_pixels
        share = self.max_video_pixels * self.temporal_patch_size // num_frames
        return max(min(self.video_max_pixels, share), int(self.video_min_pixels * 1.05))

    def _resized(self, width: int, height: int, least: int, most: int) -> tuple[int, int]:
        if max(width, height) > MAX_RATIO * min(width, height):
            raise RequestError(
                f"resolution {width}x{height}: qwen2.5-vl takes edges of up to {MAX_RATIO} to 1"
            )
        factor = self.factor
        # round() is to even at .5, as in the checkpoint's own processor.
        pixels = round(width / factor) * round(height / factor) * factor**2
        if pixels > most:
            shrink = sqrt(width * height / most)
            edges = [max(1, floor(edge / shrink / factor)) for edge in (width, height)]
        elif pixels < least:
            grow = sqrt(least / (width * height))
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
        wanted = min(max(total_frames / native_fps * fps, self.min_frames), most)
        return max(1, floor(wanted / together) * together)

    def notes(self, width: int, height: int, num_frames: int) -> list[str]:
        said = []
        if num_frames > (self.max_frames or num_frames):
            said.append(f"its processor samples at most {self.max_frames:,} frames of a video")
        budget = int(CONTEXT * SHARE)
        if self.max_video_pixels is None and num_frames:
            capped = Qwen25VL(
                **{**self.settings(), "max_video_pixels": int(budget * self.factor**2)}
            )
            less = capped.tokens_of_video(width, height, num_frames)
            if less < self.tokens_of_video(width, height, num_frames):
                said.append(
                    f"no budget for the whole video, as transformers has it; qwen-vl-utils' of "
                    f"{budget:,} tokens would make {less:,}: --max-video-tokens {budget}"
                )
        return said


VISIONS.add("qwen2.5-vl", Qwen25VL())
