"""HiMix's question, predicted: S-Attn, D-Attn and HiMix on the five decoders of its paper."""

import sys

from workbench import Grid, Sweep, geometric

DECODERS = ("qwen2-0.5b", "tinyllama-1.1b", "llama-3.2-1b", "llama-3.2-3b", "vicuna-7b")


def sweep() -> Sweep:
    """Prefill of whole decoders, the LM head on text rows for all three."""
    grid = Grid(
        source="predicted",
        device="h100-80gb",
        visual=geometric(729, 729 * 64, 4),
        models=DECODERS,
        attentions=("s_attn", "d_attn", "himix"),
        scopes="decoder",
        options={"logits": "text"},
    )
    return Sweep(name="himix", grids=(grid,))


def main() -> None:
    """``python probes/himix.py`` is ``workbench sweep probes/himix.py``."""
    from workbench.cli import main

    main(["sweep", __file__, *sys.argv[1:]])


if __name__ == "__main__":
    main()
