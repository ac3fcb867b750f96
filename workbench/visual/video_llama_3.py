"""VideoLLaMA 3: a token for each patch of an image, for 2 × 2 patches of a video's frame."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from workbench.visual import VISIONS
from workbench.visual.files import ImageFiles
from workbench.visual.qwen2_5_vl import UNSAID_VIDEO
from workbench.visual.qwen_vl import QwenVL
from workbench.vocabulary.errors import RequestError


@dataclass(frozen=True)
class VideoLlama3(QwenVL):
    """Sizes are rounded to whole tokens within limits of pixels, which a video's frames share.

    ``compresses`` says that its processor keeps, of a frame's tokens behind the tower, those whose
    pixels differ from the frame's before (``use_token_compression``). Sizes do not tell which, so
    that what is counted are all of them: the most there can be.
    """

    source: ClassVar[str] = (
        "the defaults of VideoLlama3ImageProcessor and VideoLlama3VideoProcessor in transformers,"
        " made for https://huggingface.co/lkhl/VideoLLaMA3-2B-Image-HF"
    )
    models: ClassVar[tuple[str, ...]] = ("videollama3",)
    model_type: ClassVar[str] = "video_llama_3"
    joins_frames: ClassVar[bool] = False
    unsaid_video: ClassVar[Mapping[str, int]] = UNSAID_VIDEO
    video_own: ClassVar[tuple[str, ...]] = ("merge_size",)

    max_frames: int | None = 180
    merge_size: int = 1
    temporal_patch_size: int = 1
    max_pixels: int = 1_003_520
    video_merge_size: int = 2
    video_min_pixels: int = 100_352
    video_max_pixels: int = 602_112
    compresses: bool = True

    def read(self, files: ImageFiles) -> None:
        super().read(files)
        if files.videos is not None:
            file, fields = files.videos
            said = fields.get("use_token_compression")
            if isinstance(said, bool):
                files.taken["compresses"] = said, file
            elif said is not None:
                raise RequestError(
                    f"model {files.model!r}: {file}: use_token_compression {said!r:.60}: true or "
                    "false"
                )
        together, file = files.taken.get("temporal_patch_size", (1, ""))
        if together != 1:
            raise RequestError(
                f"model {files.model!r}: {file}: temporal_patch_size {together}: the tower takes "
                "patches of one frame, 1"
            )

    def changes(self, limit: str, value: int) -> dict[str, Any] | None:
        if limit in ("min_pixels", "max_pixels"):
            return {limit: value}
        if limit == "max_video_tokens":
            return {"video_max_pixels": value * self.of_frames.factor**2}
        return super().changes(limit, value)

    @property
    def of_frames(self) -> "VideoLlama3":
        """The same, whose images are a video's frames."""
        return replace(self, merge_size=self.video_merge_size)

    def resized_frame(self, width: int, height: int, num_frames: int) -> tuple[int, int]:
        """The same for each of ``num_frames`` frames, which share the pixels of a video at most.

        The least pixels are those of each frame. Raises RequestError for more frames than pixels.
        """
        most = self.video_max_pixels // num_frames
        if not most:
            raise RequestError(
                f"frames {num_frames}: more than the {self.video_max_pixels:,} pixels that the "
                f"frames of a video share in {self.name}"
            )
        return self.of_frames.fitted(width, height, self.video_min_pixels, most)

    def tokens_of_step(self, width: int, height: int, num_frames: int = 1) -> int:
        wide, high = self.resized_frame(width, height, num_frames)
        return wide * high // self.of_frames.factor**2

    def notes(self, width: int, height: int, num_frames: int) -> list[str]:
        notes = super().notes(width, height, num_frames)
        if num_frames:
            notes.append(
                "its processor writes the time before each frame: tokens of text, which are none "
                "of |V|"
            )
        if num_frames > 1 and self.compresses:
            notes.append(
                "its processor drops tokens whose pixels are those of the frame before; which, "
                "only the frames tell: |V| is of all, the most there can be"
            )
        return notes


VISIONS.add("video-llama-3", VideoLlama3())
