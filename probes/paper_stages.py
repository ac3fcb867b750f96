"""The three training stages of the D-Attn paper, predicted: what each needs and takes.

Table 7 gives the batch, the ZeRO stage and what is trained. The micro-batch (1) and the text (400
tokens) are assumed: see workbench/vocabulary/presets.py.
"""

import sys

from workbench import Grid, Sweep
from workbench.vocabulary.presets import PRESETS

SYSTEMS = ("s_attn", "d_attn")
IMAGES = (1, 12, 100)
"""Of 729 tokens each, up to the paper's 74k."""


def sweep() -> Sweep:
    """Every stage under both systems."""
    options = tuple(
        {**PRESETS[name], "attention": system} for name in PRESETS for system in SYSTEMS
    )
    visual = tuple(729 * images for images in IMAGES)
    grid = Grid(source="predicted", device="h100-80gb", visual=visual, options=options)
    return Sweep(name="paper-stages", grids=(grid,))


def main() -> None:
    """``python probes/paper_stages.py`` is ``workbench sweep probes/paper_stages.py``."""
    from workbench.cli import main

    main(["sweep", __file__, *sys.argv[1:]])


if __name__ == "__main__":
    main()
