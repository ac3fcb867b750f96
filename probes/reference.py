"""What the reference figures stand on, measured on one card, the most valuable first.

Mistral 7B in bfloat16 with 400 text tokens: training steps of one emulated ZeRO-3 rank of 32 at
the sizes of Table 2 of the D-Attn paper, layer sweeps, prefill and decode of the whole model, then
other families and compiled layers. ``workbench sweep probes/reference.py --max-minutes 8`` goes on
where the last call stopped. docs/gpu-node.md has what stands beside it: thresholds, correctness.
"""

import sys
from typing import Any

from workbench import Grid, Protocol, Sweep

EAGER = {"kernel": "eager"}
FLASH, CUDNN = {"kernel": "flash"}, {"kernel": "cudnn"}
D_ATTN: dict[str, Any] = {"attention": "d_attn", "kernel": "flash"}
CHUNKED = {**D_ATTN, "chunk": 8192}
RANK = {"checkpoint": True, "logits": "text", "zero": 3, "world_size": 32}
STEPS = (9_000, 74_000)
"""|V| of Table 2 of the D-Attn paper."""
SIZES = (4096, 65_536, 16_384, 1024, 256)
"""|V| of the layer sweeps: those that span the range first."""
QUICK = Protocol(min_samples=10, precision=None, max_seconds=10)
COMMON: dict[str, Any] = {"device": "cuda", "text": 400}


def steps(visual: int) -> Grid:
    """A whole training step of one rank of 32, every layer, nothing communicated."""
    systems = (D_ATTN, CUDNN, FLASH, CHUNKED, *([EAGER] if visual < 10_000 else []))
    protocol = Protocol(min_samples=3, precision=None, emulate="all", timeout_s=400)
    return Grid(
        visual=visual,
        scopes="decoder",
        passes="train",
        protocol=protocol,
        options=tuple({**system, **RANK} for system in systems),
        **COMMON,
    )


def layers(visual: int) -> Grid:
    """One layer, forward and train; eager as far as its scores go."""
    systems = [FLASH, CUDNN, D_ATTN, {**D_ATTN, "fold": True}, {"attention": "himix", **FLASH}]
    systems += [CHUNKED] if visual > 8192 else []
    systems += [EAGER] if visual <= 16_384 else []
    return Grid(
        visual=visual,
        passes=("forward", "train"),
        options=tuple(systems),
        protocol=QUICK,
        **COMMON,
    )


def models() -> Grid:
    """Prefill and decode of the whole model."""
    return Grid(
        visual=STEPS,
        scopes="decoder",
        passes=("forward", "decode"),
        protocol=QUICK,
        options=tuple({**system, "logits": "text"} for system in (D_ATTN, FLASH)),
        **COMMON,
    )


def families() -> tuple[Grid, ...]:
    """Gemma 2 under FlexAttention, the only fused kernel with its soft-capping; Qwen2.5-VL."""
    flex = ({"kernel": "flex"}, {"attention": "d_attn", "kernel": "flex"})
    found = (("gemma-2-9b", flex), ("qwen2.5-vl-7b", (FLASH, D_ATTN)))
    return tuple(
        Grid(
            models=model,
            visual=(4096, 16_384),
            passes=("forward", "train"),
            options=options,
            protocol=QUICK,
            **COMMON,
        )
        for model, options in found
    )


def compiled() -> Grid:
    """How near the matmul ceiling D-Attn's layer comes through torch.compile."""
    options = {**D_ATTN, "fold": True, "compile": True}
    return Grid(
        visual=(16_384, 65_536),
        passes=("forward", "train"),
        options=options,
        protocol=QUICK,
        **COMMON,
    )


def sweep() -> Sweep:
    """In the order of their worth: a call that is short of time has the first of them."""
    grids = (*map(steps, STEPS), *map(layers, SIZES), models(), *families(), compiled())
    return Sweep(name="reference", grids=grids)


def main() -> None:
    """``python probes/reference.py`` is ``workbench sweep probes/reference.py``."""
    from workbench.cli import main

    main(["sweep", __file__, *sys.argv[1:]])


if __name__ == "__main__":
    main()
