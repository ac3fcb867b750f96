"""What `make sweep` runs: one Mistral layer, S-Attn against D-Attn, here and on an H100."""

import sys
from typing import Any

from workbench.spec import Grid, Protocol, Sweep, geometric
from workbench.sweep.machine import cpu_speed, has_cuda, memory_limit, thinned

EAGER = {"attention": "s_attn", "kernel": "eager"}
SYSTEMS = (
    EAGER,
    {"attention": "s_attn", "kernel": "sdpa"},
    {"attention": "d_attn", "kernel": "sdpa"},
)
ITERATIONS = 4 * len(SYSTEMS)
"""Of each size: one for memory, which warms up, and three samples, under every system."""
LAYER_FLOPS = 436_207_616
"""A token's forward, attention scores left out."""


def predicted() -> Grid:
    """Every system on an H100, which needs none."""
    sizes = geometric(256, 131_072)
    return Grid(source="predicted", device="h100-80gb", visual=sizes, passes=("forward", "train"),
                options=SYSTEMS)  # fmt: skip


def on_cuda() -> tuple[Grid, ...]:
    """Up to the OOM of any card: eager keeps every score, the others what a token needs."""
    protocol = Protocol(min_samples=3, precision=None, max_seconds=10)
    fields: dict[str, Any] = {
        "device": "cuda",
        "passes": ("forward", "train"),
        "protocol": protocol,
    }
    eager = Grid(visual=geometric(256, 65_536), options=SYSTEMS[:1], **fields)
    return eager, Grid(visual=geometric(256, 1_048_576), options=SYSTEMS[1:], **fields)


def on_cpu() -> tuple[Grid, ...]:
    """As far as two minutes and a half reach, and eager S-Attn where it runs out of memory."""
    dtype, rate = cpu_speed()
    limit = memory_limit(at_most=12 * 2**30, share_of_free=0.6)
    protocol = Protocol(min_samples=3, precision=None, memory_limit=limit, timeout_s=300)
    fields: dict[str, Any] = {"device": "cpu", "dtypes": (dtype,), "protocol": protocol}

    def seconds(num_visual: int) -> float:
        return ITERATIONS * LAYER_FLOPS * (num_visual + 64) / rate

    forward = thinned(geometric(64, 8192), seconds, budget_s=80)
    train = thinned(geometric(64, 1024), lambda size: 3 * seconds(size), budget_s=80)
    return (
        Grid(visual=forward, options=SYSTEMS, **fields),
        Grid(visual=train, passes=("train",), options=SYSTEMS, **fields),
        Grid(visual=(8192,), options=(EAGER,), **fields),
    )


def sweep() -> Sweep:
    """Measured on what the machine has, predicted for an H100."""
    return Sweep(name="default", grids=(predicted(), *(on_cuda() if has_cuda() else on_cpu())))


def main() -> None:
    """``python probes/default.py`` is ``workbench sweep probes/default.py``."""
    from workbench.cli import main

    main(["sweep", __file__, *sys.argv[1:]])


if __name__ == "__main__":
    main()
