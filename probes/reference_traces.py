"""Four telling layers to look into: ``workbench sweep probes/reference_traces.py --trace DIR``."""

import sys

from workbench import Grid, Protocol, Sweep

SMALL, LARGE = 256, 32_768
SYSTEMS = (
    (SMALL, {"kernel": "eager"}),
    (LARGE, {"kernel": "flash"}),
    (LARGE, {"attention": "d_attn", "kernel": "flash"}),
    (LARGE, {"attention": "d_attn", "kernel": "flash", "chunk": 8192}),
)


def sweep() -> Sweep:
    """One layer each, forward and backward, its checkpoint recomputed."""
    grids = tuple(
        Grid(
            device="cuda",
            visual=visual,
            text=400,
            passes="train",
            options={**system, "checkpoint": True},
            protocol=Protocol(min_samples=5, precision=None, max_seconds=5),
        )
        for visual, system in SYSTEMS
    )
    return Sweep(name="reference-traces", grids=grids)


def main() -> None:
    """``python probes/reference_traces.py`` is ``workbench sweep probes/reference_traces.py``."""
    from workbench.cli import main

    main(["sweep", __file__, *sys.argv[1:]])


if __name__ == "__main__":
    main()
