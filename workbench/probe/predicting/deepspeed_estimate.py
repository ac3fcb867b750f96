"""deepspeed's own estimate of model states under ZeRO 2 and 3, beside what a rank really holds.

The formulas are those behind ``estimate_zero2_model_states_mem_needs_all_cold`` and
``estimate_zero3_model_states_mem_needs_all_cold`` (runtime/zero/stage_1_and_2.py, stage3.py): 18
bytes a parameter, shared by the ranks. In stage 2 these are 2 of gradients, 4 of float32 gradients
and 12 of the optimizer, beside 2 of weights on every rank; in stage 3 the 2 are the weights'. They
know no other data type and no frozen part.
"""

from collections.abc import Sequence
from typing import Any

from workbench.probe.counting.states import Parameter, States
from workbench.vocabulary.cell import Cell

SHARED = 18
WEIGHTS = 2
"""Bytes a parameter."""
LARGEST_LAYER = 4
"""Bytes for each parameter of the largest layer, which stage 3 gathers."""


def estimated_bytes(cell: Cell, parameters: Sequence[Parameter]) -> int | None:
    """What deepspeed's functions say of one GPU; None where they say nothing (stages 0 and 1).

    The largest layer is taken for its largest parameter: biases are not counted with it.
    """
    if cell.zero < 2:
        return None
    total, ranks = sum(p.numel for p in parameters), cell.world_size
    if cell.zero == 2:
        share = 0 if cell.offload_optimizer else SHARED
        return WEIGHTS * total + share * total // ranks
    share = WEIGHTS if cell.offload_optimizer else SHARED
    return LARGEST_LAYER * max(p.numel for p in parameters) + share * total // ranks


def compare_with_deepspeed(
    cell: Cell, parameters: Sequence[Parameter], rank: States
) -> dict[str, Any]:
    """The states of one rank by kind, and deepspeed's estimate with the difference in words."""
    kinds = {
        "weights": rank.weights,
        "gradients": rank.gradients,
        "optimizer": 0 if rank.on_host else rank.optimizer,
        "zero buffers": rank.buffers,
    }
    compared: dict[str, Any] = {"held": kinds, "held_bytes": rank.total}
    estimate = estimated_bytes(cell, parameters)
    if estimate is None:
        return compared
    more = rank.total - estimate
    return {
        **compared,
        "deepspeed_estimate_bytes": estimate,
        "difference": f"deepspeed's estimate for stage {cell.zero} is {estimate:,} bytes, "
        f"{abs(more):,} {'less' if more >= 0 else 'more'} than is held here: {_why(cell, rank)}",
    }


def _why(cell: Cell, rank: States) -> str:
    if cell.zero == 2:
        layer, buffers = "", "a gradient bucket"
        gradients = "the whole gradient of every parameter that a rank's part touches"
    else:
        layer = ", 4 bytes for each parameter of the largest layer and no 16-bit gradients"
        buffers, gradients = "a gradient bucket and gathered parameters", "the rank's gradients"
    return (
        "it counts float32 gradients throughout, which exist only while the optimizer steps"
        f"{layer}; held here are {gradients} and {rank.buffers:,} bytes of {buffers}"
    )
