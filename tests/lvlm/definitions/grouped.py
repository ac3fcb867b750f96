"""Systems whose visual rows see some of their segment: the real layer under a mask, row by row."""

import torch

from tests.lvlm import oracle


def outputs(workload, sees):
    """``sees(q, k, tokens, place)`` -> [B, n, n] of bool for a visual segment of n tokens.

    q [B, H, n, K] and k [B, G, n, K] are rotated, as the layer has them.
    """
    (parts, place, _), *_ = workload.layers
    layout, context = place.layout, workload.context
    tables = context.rope(place.index, "sequence")
    sequence = layout.join(*workload.inputs)
    x = parts.input_norm(sequence)
    q, k = (parts.rope(y, *tables) for y in (parts.query(x), parts.key(x)))
    seen = oracle.visibility(layout, None, False).repeat(sequence.shape[0], 1, 1)
    visual = layout.positions(visual=True)
    seen[:, visual] = False
    for segment in layout.visual_segments:
        rows = slice(segment.start, segment.start + segment.length)
        chosen = sees(q[:, :, rows].detach(), k[:, :, rows].detach(), segment.length, place)
        seen[:, rows, rows] = torch.as_tensor(chosen)
    return layout.split(oracle.masked_layer(parts, sequence, seen, tables))


def allowed_pairs(place, sees):
    """Pairs of a layer, counted one by one; those of visual rows do not depend on the data."""
    layout = place.layout
    text = oracle.visibility(layout, None, False)[layout.positions(visual=False)]
    found = int(text.sum())
    for segment in layout.visual_segments:
        q, k = (torch.randn(1, 2, segment.length, 4) for _ in range(2))
        found += int(sees(q, k, segment.length, place).sum())
    return found
