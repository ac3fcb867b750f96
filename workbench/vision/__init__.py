"""Vision front ends: how many visual tokens an image or a sampled frame becomes. Arithmetic only.

One front end a file; a new file in this package is found by itself.
"""

import math
from abc import ABC, abstractmethod

from workbench.registry import Registry

VISIONS: "Registry[FrontEnd]" = Registry("vision front end", __name__)


class FrontEnd(ABC):
    """The published preprocessing of one vision tower, in pixels and tokens."""

    source: str
    """Where the numbers come from."""
    models: tuple[str, ...] = ()
    """Beginnings of the model names that use this front end unless told otherwise."""

    @abstractmethod
    def tokens_of_image(self, width: int, height: int) -> int:
        """Visual tokens of one image of ``width`` × ``height`` pixels, both at least 1."""

    def tokens_of_step(self, width: int, height: int) -> int:
        """Tokens of what the tower takes of a video at once: a frame, unless it merges several."""
        return self.tokens_of_image(width, height)

    def steps(self, num_frames: int) -> int:
        """How many such steps ``num_frames`` sampled frames make."""
        return num_frames

    def tokens_of_video(self, width: int, height: int, num_frames: int) -> int:
        """Visual tokens of a video from which ``num_frames`` frames were sampled."""
        return self.steps(num_frames) * self.tokens_of_step(width, height)

    def sampled(self, total_frames: int, native_fps: float, fps: float) -> int:
        """Frames sampled at ``fps`` from a clip: one at 0 s, 1/fps s, … before its end."""
        wanted = math.ceil(round(total_frames / native_fps * fps, 6))
        return max(1, min(wanted, total_frames))
