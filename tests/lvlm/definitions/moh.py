"""Every head of S-Attn under a dense mask, its output zeroed for the tokens that do not use it."""

import torch

from tests.lvlm import oracle
from workbench.lvlm.layout import causal_pairs

ACTIVE, SHARED = 0.75, 0.5
"""Three of four heads, of which two are all tokens'."""


def used(parts, x, active=ACTIVE, shared=SHARED):
    """[B, H, S] of 0 and 1, one token after the other."""
    raw = parts.project_queries(x).unflatten(-1, (parts.num_heads, parts.head_dim))
    always, on = round(shared * parts.num_heads), round(active * parts.num_heads)
    found = torch.zeros(len(x), parts.num_heads, x.shape[1], dtype=x.dtype)
    found[:, :always] = 1
    for sample in range(len(x)):
        for token in range(x.shape[1]):
            norms = [raw[sample, token, head].norm().item() for head in range(parts.num_heads)]
            best = sorted(range(always, parts.num_heads), key=lambda head: -norms[head])
            found[sample, best[: on - always], token] = 1
    return found


def layer(parts, sequence, seen, tables, active=ACTIVE, shared=SHARED):
    """[B, S, D] -> [B, S, D]."""
    x = parts.input_norm(sequence)
    q, k = parts.rope(parts.query(x), *tables), parts.rope(parts.key(x), *tables)
    repeats = parts.num_heads // parts.num_kv_heads
    k, v = (y.repeat_interleave(repeats, 1) for y in (k, parts.value(x)))
    scores = q @ k.mT * parts.scale
    if parts.softcap is not None:
        scores = parts.softcap * torch.tanh(scores / parts.softcap)
    out = torch.softmax(scores.masked_fill(~seen, float("-inf")), -1) @ v
    on = used(parts, x.detach(), active, shared)
    return parts.finish(sequence, parts.output(out * on[..., None]), x)


def outputs(workload):
    ((parts, place, _),) = workload.layers
    seen = oracle.visibility(place.layout, parts.window, diagonal=False)
    tables = workload.context.rope(place.index, "sequence")
    return (layer(parts, workload.inputs[0], seen, tables),)


def allowed_pairs(place, window):
    """Of the heads that are on, each a pair like S-Attn's; ``per_pair`` counts the heads."""
    return causal_pairs(place.layout.length, window)


def fill(target, layer, seen):
    parts, count = target.parts, target.keys.shape[2]
    x, (cos, sin) = parts.input_norm(seen), layer.tables
    rows = slice(0, seen.shape[1])
    kept = parts.rotate(parts.entries(x), cos[..., rows, :], sin[..., rows, :])
    for held, found in zip((target.keys, target.values), kept, strict=True):
        held.copy_(found[:, :, -count:])
