"""One picture: the |V| that each vision front end makes of it, on one layer of two families."""

import sys
from typing import Any

from workbench import Grid, Sweep
from workbench.visual import VISIONS

PICTURES = ((672, 672), (1344, 896))
"""Width and height in pixels. What a front end makes of them, and its source: workbench/visual."""


def sizes() -> tuple[int, ...]:
    """Every |V| that a front end makes of a picture, from 196 tokens to 2,928."""
    found = {end.tokens_of_image(*pixels) for end in VISIONS.values() for pixels in PICTURES}
    return tuple(sorted(found))


def sweep() -> Sweep:
    """Predicted for an H100. Gemma 2's soft-capping leaves it the eager kernel alone."""
    both, passes = ("s_attn", "d_attn"), ("forward", "train")
    fields: dict[str, Any] = {
        "source": "predicted",
        "device": "h100-80gb",
        "visual": sizes(),
        "attentions": both,
        "passes": passes,
    }
    mistral = Grid(models=("mistral-7b-v0.3",), kernels=("eager", "sdpa"), **fields)
    gemma = Grid(models=("gemma-2-9b",), kernels=("eager",), **fields)
    return Sweep(name="single-image", grids=(mistral, gemma))


def main() -> None:
    """``python probes/single_image.py`` is ``workbench sweep probes/single_image.py``."""
    from workbench.cli import main

    main(["sweep", __file__, *sys.argv[1:]])


if __name__ == "__main__":
    main()
