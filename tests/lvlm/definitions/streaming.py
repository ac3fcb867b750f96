"""S-Attn under a dense mask: the last tokens and the first, inside a family's own window."""

import torch

from tests.lvlm import oracle

SINKS, WINDOW = 3, 7
SETTINGS = f"sinks={SINKS},window={WINDOW}"
STEP_SETTINGS = None
"""Nothing is forgotten: only then is a step, by its places in the cache, a row of the prefill."""


def visibility(layout, window):
    place = torch.arange(layout.length)
    recent = (place[:, None] - place[None, :] < WINDOW) | (place < SINKS)
    return oracle.visibility(layout, window, diagonal=False) & recent


def outputs(workload):
    ((parts, place, _),) = workload.layers
    seen = visibility(place.layout, parts.window)
    tables = workload.context.rope(place.index, "sequence")
    return (oracle.masked_layer(parts, workload.inputs[0], seen, tables),)


def allowed_pairs(place, window):
    return int(visibility(place.layout, window).sum())


def fill(target, layer, seen):
    parts, count = target.parts, target.keys.shape[2]
    x = parts.input_norm(seen)
    for held, found in zip((target.keys, target.values), parts.entries(x), strict=True):
        held.copy_(found[:, :, -count:])
