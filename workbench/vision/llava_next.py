"""LLaVA-NeXT: a base view, and the unpadded tiles of the best grid with a newline a row."""

from workbench.vision import VISIONS, FrontEnd

IMAGE_SIZE = 336
GRID = IMAGE_SIZE // 14
PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
"""The published grids as (height, width)."""


class LlavaNext(FrontEnd):
    """CLIP L/14 at 336 pixels without its class token: 24 × 24 patches a tile."""

    source = (
        "https://huggingface.co/llava-hf/llava-v1.6-mistral-7b-hf config.json"
        " (image_grid_pinpoints); LlavaNextProcessor in transformers for the unpadding"
    )
    models = ("llava-v1.6", "llava_next", "llava-next")

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """The (height, width) that keeps most of the image's pixels and wastes least."""

        def worth(pinpoint: tuple[int, int]) -> tuple[int, int]:
            grid_height, grid_width = pinpoint
            scale = min(grid_width / width, grid_height / height)
            kept = min(int(width * scale) * int(height * scale), width * height)
            return kept, kept - grid_height * grid_width

        return max(PINPOINTS, key=worth)

    def tokens_of_image(self, width: int, height: int) -> int:
        grid_height, grid_width = self.grid(width, height)
        rows, columns = grid_height // IMAGE_SIZE * GRID, grid_width // IMAGE_SIZE * GRID
        # Padding is cut off on both sides alike, so an odd patch of it stays.
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        return GRID**2 + rows * (columns + 1)


VISIONS.add("llava-next", LlavaNext())
