"""FLOPs of a whole workload in closed form, for ``model_flops``: no recomputation."""

from workbench.lvlm.workload import Workload


def model_flops(workload: Workload) -> int:
    """The closed form of one micro-batch; a backward is two forwards, one where no input needs it.

    A frozen part lacks the gradients of its weights, a frozen tower any, and so does a choice.
    """
    cell, system = workload.cell, workload.system
    forward = forward_flops(workload)
    if cell.pass_ != "train":
        return forward
    choices = sum(n * system.choice_flops(p, place, cell) for p, place, n in workload.layers)
    left_out = workload.leaf_flops + 2 * choices
    weightless = backward = 0
    for parts, place, count in workload.layers:
        once, back = system.weightless_flops(parts, place, cell)
        weightless, backward = weightless + count * once, backward + count * back
    left_out += 2 * weightless - backward
    own = workload.backward_flops
    left_out += sum(2 * workload.outside_flops[name] - flops for name, flops in own.items())
    for part in cell.frozen_parts:
        if part == "decoder":
            linear = sum(
                n * system.linear_flops(p, place, cell) for p, place, n in workload.layers
            )
            left_out += workload.head_flops + linear - choices - weightless
        elif part not in own:
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
        hidden += count * cell.batch * per_pair * (pairs.dense - pairs.allowed)
    return hidden * (3 if cell.pass_ == "train" else 1)


def forward_flops(workload: Workload) -> int:
    """The closed form of one forward; a backward without recomputation is twice that."""
    cell = workload.cell
    outside = workload.head_flops + sum(workload.outside_flops.values())
    return outside + sum(
        count * workload.system.forward_flops(parts, place, cell)
        for parts, place, count in workload.layers
    )
