"""Qwen2.5-VL: native resolution, rounded to 28 pixels, and pairs of frames in one step."""

from math import ceil, floor, sqrt

from workbench.errors import RequestError
from workbench.vision import VISIONS, FrontEnd

PATCH_SIZE = 14
MERGE = 2
FACTOR = PATCH_SIZE * MERGE
TEMPORAL = 2
MIN_PIXELS = 3_136
MAX_PIXELS = 12_845_056
MAX_RATIO = 200
MIN_FRAMES = 4
MAX_FRAMES = 768


class Qwen25VL(FrontEnd):
    """A token is 2 × 2 patches of 14 pixels, and 2 frames of a video."""

    source = (
        "https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct preprocessor_config.json (min_pixels,"
        " max_pixels), read by transformers for images and for video; 4 to 768 frames: its video"
        " processor"
    )
    models = ("qwen2.5-vl", "qwen2_5_vl")

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) that the tower sees: multiples of 28 within the pixel limits."""
        if max(width, height) > MAX_RATIO * min(width, height):
            raise RequestError(
                f"resolution {width}x{height}: qwen2.5-vl takes edges of up to {MAX_RATIO} to 1"
            )
        # round() is to even at .5, as in the checkpoint's own processor.
        pixels = round(width / FACTOR) * round(height / FACTOR) * FACTOR**2
        if pixels > MAX_PIXELS:
            shrink = sqrt(width * height / MAX_PIXELS)
            edges = [max(1, floor(edge / shrink / FACTOR)) for edge in (width, height)]
        elif pixels < MIN_PIXELS:
            grow = sqrt(MIN_PIXELS / (width * height))
            edges = [ceil(edge * grow / FACTOR) for edge in (width, height)]
        else:
            edges = [round(edge / FACTOR) for edge in (width, height)]
        return edges[0] * FACTOR, edges[1] * FACTOR

    def tokens_of_image(self, width: int, height: int) -> int:
        resized = self.resized(width, height)
        return resized[0] * resized[1] // FACTOR**2

    def steps(self, num_frames: int) -> int:
        return ceil(num_frames / TEMPORAL)

    def sampled(self, total_frames: int, native_fps: float, fps: float) -> int:
        most = floor(min(MAX_FRAMES, total_frames) / TEMPORAL) * TEMPORAL
        wanted = min(max(total_frames / native_fps * fps, MIN_FRAMES), most)
        return max(1, floor(wanted / TEMPORAL) * TEMPORAL)


VISIONS.add("qwen2.5-vl", Qwen25VL())
