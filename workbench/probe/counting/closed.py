"""FLOPs of a whole workload in closed form, for ``model_flops``: no recomputation."""

from workbench.lvlm.build import Workload


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
                count * workload.system.linear_flops(parts, place, workload.cell)
                for parts, place, count in workload.layers
            )
        else:
            left_out += workload.outside_flops.get(part, 0) * (2 if part == "tower" else 1)
    return 3 * forward - left_out


def hidden_model_flops(workload: Workload) -> int:
    """The share of model_flops that belongs to pairs under the mask."""
    cell, system = workload.cell, workload.system
    if cell.pass_ == "decode":
        return 0
    hidden = 0
    for parts, place, count in workload.layers:
        pairs = system.pairs(place, parts.window)
        per_pair = system.per_pair(parts, place)
        hidden += count * cell.batch * per_pair * (pairs.dense - pairs.allowed) // cell.ulysses
    return hidden * (3 if cell.pass_ == "train" else 1)


def forward_flops(workload: Workload) -> int:
    """The closed form of one forward; a backward without recomputation is twice that."""
    cell = workload.cell
    outside = workload.head_flops + sum(workload.outside_flops.values())
    # Ranks that share a sequence share the layers' work: rows outside attention, heads inside.
    return outside + sum(
        count * workload.system.forward_flops(parts, place, cell) // cell.ulysses
        for parts, place, count in workload.layers
    )
