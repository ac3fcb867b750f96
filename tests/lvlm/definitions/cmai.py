"""Layer by layer with its whole attention map; test_cmai.py holds the system against it."""

import torch

from tests.lvlm import oracle

SETTINGS = "inhibit=0.4"
REFUSED = ("cohere2", "exaone4", "gemma2", "gemma3", "gemma4", "llama4")
"""Their local layers' windows bite, or chunks."""


def seen_by(layout, reach, lost):
    """[B, S, S]: causality without the ``lost`` visual tokens of each text row with least F."""
    seen = oracle.visibility(layout, None, diagonal=False)
    if reach is None:
        return seen[None]
    seen = seen.expand(reach.shape[0], -1, -1).clone()
    text, visual = (layout.positions(kind).tolist() for kind in (False, True))
    for sample, of_sample in enumerate(reach):
        for row, found in zip(text, of_sample.tolist(), strict=True):
            # What stands after the row first, then the least.
            order = sorted(range(len(visual)), key=lambda j: (visual[j] < row, found[j]))
            for j in order[:lost]:
                seen[sample, row, visual[j]] = False
    return seen


def reach_of(weights, layout):
    """F [B, T, V] of an attention map [B, H, S, S]."""
    mean = weights.detach().mean(1)
    text, visual = (layout.positions(kind) for kind in (False, True))
    return mean[:, text][:, :, text] @ mean[:, text][:, :, visual]


def layer(parts, x, seen, tables):
    """The layer's output and attention map."""
    y = parts.input_norm(x)
    q, k = (parts.rope(z, *tables) for z in (parts.query(y), parts.key(y)))
    k, v = (
        z.repeat_interleave(parts.num_heads // parts.num_kv_heads, 1) for z in (k, parts.value(y))
    )
    scores = (q @ k.mT * parts.scale).masked_fill(~seen[:, None], float("-inf"))
    weights = torch.softmax(scores, -1)
    return parts.finish(x, parts.output(weights @ v), y), weights


def allowed_pairs(place, window):
    layout = place.layout
    pairs = oracle.visibility(layout, window, diagonal=False)
    lost = int(0.4 * layout.num_visual + 1e-9)
    bites = pairs.sum() < oracle.visibility(layout, None, diagonal=False).sum()
    if "inhibits" not in place.role or bites:
        return int(pairs.sum())
    nothing = torch.zeros(1, layout.num_text, layout.num_visual)
    return int((seen_by(layout, nothing, lost)[0] & pairs).sum())
