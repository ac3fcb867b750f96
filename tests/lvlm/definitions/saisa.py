"""SAISA: the text rows of the real layer over the projected features and the text."""

import torch

from tests.lvlm import oracle


def outputs(workload):
    (parts, place, _), *_ = workload.layers
    visual, text = workload.inputs
    layer = getattr(workload.module, "inner", workload.module)  # Under a checkpoint.
    layout, (first, _, second) = place.layout, layer.projector
    hidden = visual @ first.weight.mT + first.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    sequence = layout.join(hidden @ second.weight.mT + second.bias, text)
    seen = oracle.visibility(layout, parts.window, False)
    tables = workload.context.rope(place.index, "sequence")
    return visual, layout.split(oracle.masked_layer(parts, sequence, seen, tables))[1]


def allowed_pairs(place, window):
    text = place.layout.positions(visual=False)
    return int(oracle.visibility(place.layout, window, False)[text].sum())
