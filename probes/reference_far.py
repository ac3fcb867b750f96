"""The far goal: a training step over a million visual tokens, all layers, one rank of 32.

The second of two iterations is timed. The boundaries of all layers wait in some 115 GiB of host
memory.
"""

import sys

from workbench import Grid, Protocol, Sweep

OPTIONS = {
    "attention": "d_attn",
    "kernel": "flash",
    "chunk": 8192,
    "checkpoint": True,
    "checkpoint_every": 2,
    "offload": True,
    "logits": "text",
    "zero": 3,
    "world_size": 32,
}


def sweep() -> Sweep:
    """One cell."""
    grid = Grid(
        device="cuda",
        visual=1_000_000,
        text=400,
        scopes="decoder",
        passes="train",
        options=OPTIONS,
        protocol=Protocol(emulate="all", iterations=2, timeout_s=1800),
    )
    return Sweep(name="reference-far", grids=(grid,))


def main() -> None:
    """``python probes/reference_far.py`` is ``workbench sweep probes/reference_far.py``."""
    from workbench.cli import main

    main(["sweep", __file__, *sys.argv[1:]])


if __name__ == "__main__":
    main()
