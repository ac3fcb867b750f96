"""Table 2 of the D-Attn paper, predicted: one training step at 9k and at 74k visual tokens.

Mistral 7B, gradient checkpointing, ZeRO-3 over 32 H100 80 GB. The paper states neither the text
length nor the micro-batch; 400 text tokens, one sample a GPU and logits on text rows are assumed.
The report of the sweep sets both side by side, with the micro-batch that would explain the limits.
"""

import sys

from workbench import Grid, Sweep

SYSTEMS = (
    {"attention": "s_attn", "kernel": "eager"},
    {"attention": "s_attn", "kernel": "sdpa"},
    {"attention": "s_attn", "kernel": "sdpa", "tiled": True},
    {"attention": "d_attn_biased", "kernel": "sdpa"},
    {"attention": "d_attn", "kernel": "sdpa"},
    {"attention": "d_attn", "kernel": "sdpa", "chunk": 8192},
)
TRAINING = {"checkpoint": True, "zero": 3, "world_size": 32, "logits": "text"}


def sweep() -> Sweep:
    """Both sizes of the table under every baseline."""
    grid = Grid(
        source="predicted",
        device="h100-80gb",
        visual=(9_000, 74_000),
        text=400,
        scopes="decoder",
        passes="train",
        options=tuple({**system, **TRAINING} for system in SYSTEMS),
    )
    return Sweep(name="paper-table2", grids=(grid,))


def main() -> None:
    """``python probes/paper_table2.py`` is ``workbench sweep probes/paper_table2.py``."""
    from workbench.cli import main

    main(["sweep", __file__, *sys.argv[1:]])


if __name__ == "__main__":
    main()
