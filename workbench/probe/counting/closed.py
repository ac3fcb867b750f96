"""FLOPs of a whole workload in closed form, for ``model_flops``: no recomputation."""

from workbench.lvlm.build import Workload
from workbench.lvlm.layout import Layout


def model_flops(workload: Workload) -> int:
    """The closed form of one micro-batch; a backward is two forwards, one where no input needs it.

    A frozen part lacks the gradients of its weights, a frozen tower any.
    """
    forward = forward_flops(workload)
    if workload.cell.pass_ != "train":
        return forward
    left_out = workload.leaf_flops
    for part in workload.cell.frozen_parts:
        if part == "decoder":
            left_out += workload.head_flops + sum(
                n * workload.system.linear_flops(parts, workload.cell)
                for parts, n in workload.layers
            )
        else:
            left_out += workload.outside_flops.get(part, 0) * (2 if part == "tower" else 1)
    return 3 * forward - left_out


def hidden_model_flops(workload: Workload) -> int:
    """The share of model_flops that belongs to pairs under the mask."""
    cell, layout = workload.cell, Layout.of(workload.cell)
    if cell.pass_ == "decode":
        return 0
    hidden = 0
    for parts, count in workload.layers:
        pairs = workload.system.pairs(layout, parts.window)
        per_pair = 4 * parts.num_heads * parts.head_dim
        hidden += count * cell.batch * per_pair * (pairs.dense - pairs.allowed) // cell.ulysses
    return hidden * (3 if cell.pass_ == "train" else 1)


def forward_flops(workload: Workload) -> int:
    """The closed form of one forward; a backward without recomputation is twice that."""
    cell = workload.cell
    outside = workload.head_flops + sum(workload.outside_flops.values())
    # Ranks that share a sequence share the layers' work: rows outside attention, heads inside.
    return outside + sum(
        count * workload.system.forward_flops(parts, cell) // cell.ulysses
        for parts, count in workload.layers
    )
