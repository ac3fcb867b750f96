"""A video at one frame a second, from a minute to four hours: millions of visual tokens."""

import sys

from workbench import Grid, Sweep
from workbench.visual import VISIONS

MINUTES = (1, 4, 15, 60, 240)
FRONT_ENDS = ("pooled", "siglip")
"""196 and 729 tokens a frame. Their sources: workbench/visual."""
SYSTEMS = (
    {"attention": "s_attn", "kernel": "sdpa"},
    {"attention": "d_attn", "kernel": "sdpa"},
    {"attention": "d_attn", "kernel": "sdpa", "fold": True, "chunk": 16_384},
)


def sizes() -> tuple[int, ...]:
    """|V| of each length under each front end, up to 10.5 million."""
    ends = [VISIONS[name] for name in FRONT_ENDS]
    return tuple(sorted(end.tokens_of_video(640, 360, 60 * m) for end in ends for m in MINUTES))


def sweep() -> Sweep:
    """Predicted for an H100, one Mistral layer: what fits, and what its time is made of."""
    passes = ("forward", "train")
    grid = Grid(
        source="predicted", device="h100-80gb", visual=sizes(), passes=passes, options=SYSTEMS
    )
    return Sweep(name="long-video", grids=(grid,))


def main() -> None:
    """``python probes/long_video.py`` is ``workbench sweep probes/long_video.py``."""
    from workbench.cli import main

    main(["sweep", __file__, *sys.argv[1:]])


if __name__ == "__main__":
    main()
