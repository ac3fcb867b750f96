"""Gemma 4: an image is scaled to a budget of tokens, in whole squares of 48 pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, sqrt
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.files import CONFIG, IMAGES, ImageFiles
from workbench.vocabulary.errors import RequestError

BUDGETS = (70, 140, 280, 560, 1120)
"""Tokens of an image at most that its processors know."""


@dataclass(frozen=True)
class Gemma4(FrontEnd):
    """A token is the mean of 3 × 3 patches of 16 pixels; a frame has a budget of its own.

    Images are scaled up or down until their tokens fill the budget; both sides are then rounded
    down to whole tokens. Before each frame of a video stands its time as text.
    """

    source: ClassVar[str] = (
        "https://huggingface.co/google/gemma-4-31B-it processor_config.json, whose values are the"
        " defaults of Gemma4ImageProcessor and Gemma4VideoProcessor in transformers: 280 tokens of"
        " an image, 70 of a frame; for E2B and E4B transformers' conversion script writes the same"
    )
    models: ClassVar[tuple[str, ...]] = ("gemma-4",)

    patch_size: int = 16
    pooling: int = 3
    """Patches a side of a token."""
    max_tokens: int = 280
    video_max_tokens: int = 70

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "gemma4" and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        files.side("patch_size", files.tower.get("patch_size"), CONFIG)
        files.take("pooling", files.tower.get("pooling_kernel_size"), CONFIG)
        for section, budget in ((files.images, "max_tokens"), (files.videos, "video_max_tokens")):
            if section is None or (budget == "video_max_tokens" and section[0] == IMAGES):
                continue  # A video processor has its own budget, where no file gives it one.
            file, fields = section
            files.side("patch_size", fields.get("patch_size"), file)
            files.take("pooling", fields.get("pooling_kernel_size"), file)
            tokens = fields.get("max_soft_tokens")
            if tokens is not None and (isinstance(tokens, bool) or tokens not in BUDGETS):
                raise RequestError(
                    f"model {files.model!r}: {file}: max_soft_tokens {tokens!r:.60}: one of "
                    f"{', '.join(map(str, BUDGETS))}"
                )
            files.take(budget, tokens, file)

    @property
    def factor(self) -> int:
        """Pixels a side of a token."""
        return self.patch_size * self.pooling

    def grid(self, width: int, height: int, budget: int) -> tuple[int, int]:
        """Rows and columns of tokens; RequestError for an image too long to have any."""
        scale = sqrt(budget * self.factor**2 / (width * height))
        rows, columns = (floor(scale * side / self.factor) for side in (height, width))
        if rows == 0 and columns == 0:
            raise RequestError(f"resolution {width}x{height}: {budget} tokens leave none of it")
        if rows == 0:
            return 1, min(floor(width / height), budget)
        if columns == 0:
            return min(floor(height / width), budget), 1
        return rows, columns

    def tokens_of_image(self, width: int, height: int) -> int:
        rows, columns = self.grid(width, height, self.max_tokens)
        return rows * columns

    def markers_of_image(self, width: int, height: int) -> int:
        return 2  # The beginning and the end of an image.

    def tokens_of_step(self, width: int, height: int, num_frames: int = 1) -> int:
        rows, columns = self.grid(width, height, self.video_max_tokens)
        return rows * columns

    def notes(self, width: int, height: int, num_frames: int) -> list[str]:
        if not num_frames:
            return []
        return [
            f"its processor writes the time and two markers around each of the {num_frames:,} "
            "frames, tokens of text, which are none of |V|; asked for no rate it takes 32 frames"
        ]


VISIONS.add("gemma-4", Gemma4())
