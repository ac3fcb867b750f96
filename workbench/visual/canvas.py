"""A canvas of square tiles for an image, as processors choose it."""

from collections.abc import Callable

MOST_TILES = 64
"""Beyond which no canvas is looked for."""


def canvas_of(
    width: float,
    height: float,
    edge: int,
    max_tiles: int,
    rounded: Callable[[float], float] = float,
    largest: bool = False,
) -> tuple[int, int]:
    """Rows and columns of tiles of ``edge`` pixels: the canvas that enlarges an image least, or
    else shrinks it least; of those alike the one of fewest tiles (Llama 3.2 Vision and 4).

    ``rounded`` is what a processor's arithmetic makes of a quotient; ``largest`` takes the canvas
    that enlarges the image most, where any does.
    """
    numbers = range(1, max_tiles + 1)
    scales = {
        (rows, columns): min(rounded(rows * edge / height), rounded(columns * edge / width))
        for rows in numbers
        for columns in numbers
        if rows * columns <= max_tiles
    }
    larger = [scale for scale in scales.values() if scale >= 1]
    best = min(larger) if larger and not largest else max(scales.values())
    alike = (canvas for canvas, scale in scales.items() if scale == best)
    return min(alike, key=lambda canvas: canvas[0] * canvas[1])


def canvases(least: int, most: int, longest: int | None = None) -> list[tuple[int, int]]:
    """Pairs of numbers whose product is from ``least`` to ``most``, those of fewer tiles first.

    Neither is over ``longest``, where one is named.
    """
    numbers = range(1, min(most, longest or most) + 1)
    pairs = [(a, b) for a in numbers for b in numbers if least <= a * b <= most]
    return sorted(pairs, key=lambda pair: pair[0] * pair[1])


def nearest_canvas(
    width: int, height: int, edge: int, least: int, most: int, longest: int | None = None
) -> tuple[int, int]:
    """Columns and rows of so many tiles of ``edge`` pixels, whose shape is nearest the image's.

    As the processors of InternVL and DeepSeek-OCR 2 choose it (transformers'
    get_optimal_tiled_canvas); neither is over ``longest``, where one is named.
    """
    best, nearest, shape = (1, 1), float("inf"), width / height
    for columns, rows in canvases(least, most, longest):
        away = abs(shape - columns / rows)
        area = edge**2 * columns * rows
        # Of canvases of one shape the larger, up to twice the image's own pixels.
        if away < nearest or (away == nearest and width * height > 0.5 * area):
            best, nearest = (columns, rows), away
    return best
