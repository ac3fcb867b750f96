"""What `make sweep` runs: one Mistral layer, S-Attn against D-Attn, here and on an H100."""

import sys
from typing import Any

from workbench import Grid, Protocol, Sweep, geometric
from workbench.sweep.machine import Card, card, cpu_speed, has_cuda, memory_limit, thinned

EAGER = {"attention": "s_attn", "kernel": "eager"}
SYSTEMS = (
    EAGER,
    {"attention": "s_attn", "kernel": "sdpa"},
    {"attention": "d_attn", "kernel": "sdpa"},
)
CPU_MINUTES, CARD_MINUTES = 2.0, 2.5
"""Of a call; `make sweep` also writes two reports, and all of it takes four."""
CPU_SIZES, CPU_TRAIN = (64, 256, 128, 1024, 512, 4096, 2048, 8192), 1024
"""On a CPU, the most telling first; the largest of a training pass."""
LAYER_FLOPS = 436_207_616
"""A token's forward, attention scores left out."""
HEADS, WIDTH, TEXT, TOKEN_BYTES = 32, 4096, 64, 2 * (3 * 14_336 + 2 * 4096)
"""Of a Mistral 7B layer: heads, their dimensions together, text tokens, bytes of a token."""
EAGER_COST = 10
"""How much longer eager takes over a pair than a fused kernel, its scores going to memory."""
SIZES = geometric(256, 2**22)
"""On a card: the largest is beyond any card's memory."""
CELL_S = 2.0
"""Of a cell on a card beside its iterations: built, prepared, watched."""
CARD_ITERATIONS = 9
"""On a card at most: two that prepare, three samples, three by part, one profiled."""
CARD_SHARES = (
    ((EAGER,), ("forward", "train"), 30.0),
    (SYSTEMS[1:], ("forward",), 50.0),
    (SYSTEMS[1:], ("train",), 60.0),
)
"""Systems, passes and about their seconds; the minutes are kept while they run."""


def predicted() -> Grid:
    """Every system on an H100, which needs none."""
    sizes = geometric(256, 131_072)
    return Grid(
        source="predicted",
        device="h100-80gb",
        visual=sizes,
        passes=("forward", "train"),
        options=SYSTEMS,
    )


def on_cuda() -> tuple[Grid, ...]:
    """Up to each system's out-of-memory, as densely as the minutes allow."""
    protocol = Protocol(min_samples=3, precision=None, max_seconds=10)
    found, gpu = [], card()
    for options, passes, budget_s in CARD_SHARES:
        fields: dict[str, Any] = {"device": "cuda", "passes": passes, "protocol": protocol}
        fails = next(v for v in SIZES if needs(options[0], passes[0], v) > gpu.memory_bytes)
        may_fit = SIZES[: SIZES.index(fails)]
        fit = thinned(may_fit, lambda v: seconds(options, passes, v, gpu), budget_s)  # noqa: B023
        found.append(Grid(visual=(*fit, fails), options=options, **fields))
    return tuple(found)


def needs(system: dict[str, Any], pass_: str, num_visual: int) -> int:
    """Bytes that a layer holds at least: where they are more than the card's, it cannot run.

    Eager: each head's scores, and their softmax in float32. The others, of a token: gate, up and
    their product, two residual streams; for a backward all that the MLP and attention save.
    """
    if system["kernel"] == "eager":
        return HEADS * (num_visual + TEXT) ** 2 * (2 + 4)
    return (num_visual + TEXT) * (TOKEN_BYTES if pass_ == "forward" else 2 * TOKEN_BYTES)


def seconds(
    options: tuple[dict[str, Any], ...], passes: tuple[str, ...], num_visual: int, gpu: Card
) -> float:
    """Of all iterations of one size under these systems and passes, about."""
    tokens, spent = num_visual + TEXT, 0.0
    for system in options:
        # 4 H K FLOPs a pair; a fused kernel skips the half that the mask hides, D-Attn most pairs.
        pairs = {"s_attn": tokens**2 / 2, "d_attn": TEXT * tokens}[system["attention"]]
        scores = 4 * WIDTH * (EAGER_COST if system["kernel"] == "eager" else 1) * pairs
        forward = (LAYER_FLOPS * tokens + scores) / gpu.flops_per_s
        for pass_ in passes:
            spent += CELL_S + CARD_ITERATIONS * forward * (1 if pass_ == "forward" else 3.3)
    return spent


def on_cpu() -> tuple[Grid, ...]:
    """A check of the method where there is no card, the most telling sizes first.

    Eager S-Attn runs out of memory; then three small sizes, and larger ones until the minutes are
    over.
    """
    dtype, _ = cpu_speed()
    limit = memory_limit(at_most=12 * 2**30, share_of_free=0.6)
    protocol = Protocol(min_samples=3, precision=None, memory_limit=limit, timeout_s=300)
    fields: dict[str, Any] = {"device": "cpu", "dtypes": (dtype,), "protocol": protocol}
    far = Grid(visual=(CPU_SIZES[-1],), options=(EAGER,), **fields)
    each = (
        Grid(
            visual=(size,),
            passes=("forward", "train") if size <= CPU_TRAIN else ("forward",),
            options=SYSTEMS,
            **fields,
        )
        for size in CPU_SIZES
    )
    return (far, *each)


def sweep() -> Sweep:
    """Predicted for an H100, then measured on what the machine has."""
    here, minutes = (on_cuda(), CARD_MINUTES) if has_cuda() else (on_cpu(), CPU_MINUTES)
    return Sweep(name="default", grids=(predicted(), *here), max_minutes=minutes)


def main() -> None:
    """``python probes/default.py`` is ``workbench sweep probes/default.py``."""
    from workbench.cli import main

    main(["sweep", __file__, *sys.argv[1:]])


if __name__ == "__main__":
    main()
