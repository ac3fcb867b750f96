"""Hyper attention, row by row: the images before a row, each at the place of its last token."""

import torch

from tests.lvlm.definitions.reading import own_branch, own_pairs, repeated, text_alone
from tests.lvlm.oracle import _branch, _split, near

SETTINGS = "every=2"


def image_places(layout):
    """Of every visual token: where the last one of its segment stands."""
    places = [s.start + s.length - 1 for s in layout.visual_segments for _ in range(s.length)]
    return torch.tensor(places, dtype=torch.int64)


def seen_pairs(layout, window):
    """[T, V] of bool."""
    text, images = layout.positions(visual=False), image_places(layout)
    seen = images[None] < text[:, None]
    return seen & near(text[:, None], images[None], window)


def outputs(workload):
    (parts, place, _), *_ = workload.layers
    context, module, layout = workload.context, workload.module, place.layout
    visual, text = workload.inputs
    tables = context.rope(place.index, "text")
    if place.role != "hyper" or not layout.num_visual:
        return visual, text_alone(parts, layout, text, tables)
    weight, bias = module.kv_proj_img.weight, module.kv_proj_img.bias
    key, value = (parts.input_norm(visual) @ weight.mT + bias).chunk(2, -1)
    key = _split(key, parts.num_kv_heads)
    if parts.k_norm is not None:
        key = parts.k_norm(key)
    cos, sin = (t[:, image_places(layout)] for t in context.rope(place.index, "sequence"))
    key = repeated(parts, parts.rope(key, cos, sin))
    value = repeated(parts, _split(value, parts.num_kv_heads))
    x = parts.input_norm(text)
    own = own_branch(parts, x, tables)
    images = seen_pairs(layout, parts.window)
    at, rows = layout.positions(visual=False), []
    for row in range(layout.num_text):
        shown = (at <= at[row]) & near(at[row], at, parts.window)
        branches = [
            _branch(parts, own, row, shown),
            _branch(parts, (own[0], key, value), row, images[row]),
        ]
        rows.append(merged(module, x[:, row], branches, workload.system.settings["gate"]))
    return visual, parts.finish(text, parts.output(torch.stack(rows, 2)), x)


def merged(module, x, branches, gate):
    """One row [B, H, K] of (scores [B, H, n], values [B, H, n, K]) of text and images."""
    if gate == "joint":
        scores = torch.cat([s for s, _ in branches], -1)
        values = torch.cat([v for _, v in branches], 2)
        return torch.einsum("bhs,bhsk->bhk", torch.softmax(scores, -1), values)
    sa, xa = (torch.einsum("bhs,bhsk->bhk", torch.softmax(s, -1), v) for s, v in branches)
    if not branches[1][0].shape[-1]:
        return sa
    if gate == "adaptive":
        beta = torch.sigmoid(x @ module.beta.weight.mT + module.beta.bias)[:, None]
    else:
        beta = torch.sigmoid(module.gate)[:, 0]
    return (1 - beta) * sa + beta * xa


def allowed_pairs(place, window):
    found = own_pairs(place.layout, window)
    return found + (int(seen_pairs(place.layout, window).sum()) if place.role else 0)
