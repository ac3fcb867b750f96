"""Table 3 of the D-Attn paper, predicted: what each merging strategy costs on Mistral 7B."""

import sys

from workbench import Grid, Sweep, geometric

STRATEGIES = ("d_attn_cascade", "d_attn_tanh", "d_attn_sigmoid", "d_attn_sum", "d_attn")


def sweep() -> Sweep:
    """Whole decoders: parameters, FLOPs, memory and time of a training step."""
    grid = Grid(
        source="predicted",
        device="h100-80gb",
        visual=geometric(729, 729 * 64, 4),
        attentions=STRATEGIES,
        text=400,
        scopes="decoder",
        passes="train",
        options={"checkpoint": True, "zero": 3, "world_size": 32, "logits": "text"},
    )
    return Sweep(name="paper-table3", grids=(grid,))


def main() -> None:
    """``python probes/paper_table3.py`` is ``workbench sweep probes/paper_table3.py``."""
    from workbench.cli import main

    main(["sweep", __file__, *sys.argv[1:]])


if __name__ == "__main__":
    main()
