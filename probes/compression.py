"""Reducers under S-Attn and D-Attn, predicted: fewer tokens, or tokens that cost less?"""

import sys

from workbench import Grid, Sweep
from workbench.vocabulary.systems import entries

VISUAL = (729, 2_916, 8_748, 35_721, 73_629, 294_516, 1_000_188)
"""Whole images of 729 tokens."""


def sweep() -> Sweep:
    """A whole Mistral 7B with the paper's tower, forward and training."""
    reducers = (None, *entries()["reduce"])
    options = tuple(
        {"attention": system, "reduce": reducer, "logits": "text", "checkpoint": True}
        for system in ("s_attn", "d_attn")
        for reducer in reducers
    )
    grid = Grid(
        source="predicted",
        device="h100-80gb",
        visual=VISUAL,
        scopes="lvlm",
        passes=("forward", "train"),
        text=(400,),
        options=options,
    )
    return Sweep(name="compression", grids=(grid,))


def main() -> None:
    """``python probes/compression.py`` is ``workbench sweep probes/compression.py``."""
    from workbench.cli import main

    main(["sweep", __file__, *sys.argv[1:]])


if __name__ == "__main__":
    main()
