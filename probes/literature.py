"""Every attention system, predicted for an H100 from one image to a million visual tokens."""

import sys

from workbench import Grid, Sweep
from workbench.vocabulary.systems import entries

VISUAL = (729, 2_916, 9_000, 18_000, 37_000, 74_000, 148_000, 400_000, 1_000_000)
TEXT = 400


def sweep() -> Sweep:
    """Prefill and training steps of a whole Mistral 7B, logits of the text rows.

    Every system runs on ``eager``, the one kernel that serves them all: its FLOPs are those of any
    other, its memory and seconds are not, so ``sdpa`` stands beside it where it serves the system.
    """
    systems = tuple(entries()["attention"])
    grid = Grid(
        source="predicted",
        device="h100-80gb",
        visual=VISUAL,
        attentions=systems,
        kernels=("eager", "sdpa"),
        scopes="decoder",
        passes=("forward", "train"),
        text=(TEXT,),
        options={"logits": "text", "checkpoint": True},
    )
    return Sweep(name="literature", grids=(grid,))


def main() -> None:
    """``python probes/literature.py`` is ``workbench sweep probes/literature.py``."""
    from workbench.cli import main

    main(["sweep", __file__, *sys.argv[1:]])


if __name__ == "__main__":
    main()
