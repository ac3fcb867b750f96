"""A canvas of square tiles for an image, as the processors of Llama 3.2 Vision and 4 choose it."""

from collections.abc import Callable

MOST_TILES = 64
"""Beyond which no canvas is looked for."""


def canvas_of(
    width: int,
    height: int,
    edge: int,
    max_tiles: int,
    rounded: Callable[[float], float] = float,
) -> tuple[int, int]:
    """Rows and columns of tiles of ``edge`` pixels: the canvas that enlarges an image least, or
    else shrinks it least; of those alike the one of fewest tiles.

    ``rounded`` is what a processor's arithmetic makes of a quotient.
    """
    numbers = range(1, max_tiles + 1)
    scales = {
        (rows, columns): min(rounded(rows * edge / height), rounded(columns * edge / width))
        for rows in numbers
        for columns in numbers
        if rows * columns <= max_tiles
    }
    larger = [scale for scale in scales.values() if scale >= 1]
    best = min(larger) if larger else max(scales.values())
    alike = (canvas for canvas, scale in scales.items() if scale == best)
    return min(alike, key=lambda canvas: canvas[0] * canvas[1])
