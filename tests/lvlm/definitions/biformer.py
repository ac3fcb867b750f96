"""BiFormer: the regions that each region likes best, and the tail, row by row."""

import torch

from tests.lvlm.definitions import grouped

REGION, TOPK = 4, 2
SETTINGS = f"region={REGION},topk={TOPK}"
REFUSED = ("cohere2", "exaone4", "gemma2", "gemma3", "gemma4", "llama4")
"""Their sliding windows, and chunks."""


def sees(q, k, tokens, place, region=REGION, topk=TOPK):
    count = tokens // region
    heads = [h * k.shape[1] // q.shape[1] for h in range(q.shape[1])]
    seen = torch.zeros(q.shape[0], tokens, tokens, dtype=torch.bool)
    seen[:, :, count * region :] = True
    runs = [range(r * region, (r + 1) * region) for r in range(count)]
    runs += [range(count * region, tokens)] if tokens % region else []
    for sample in range(q.shape[0]):
        for rows in runs:
            liked = []
            for r in range(count):
                keys = k[sample, :, r * region : (r + 1) * region].mean(1)
                mean = q[sample, :, rows.start : rows.stop].mean(1)
                liked.append(sum(mean[h] @ keys[g] for h, g in enumerate(heads)).item())
            for r in sorted(range(count), key=lambda r: -liked[r])[:topk]:
                seen[sample, rows.start : rows.stop, r * region : (r + 1) * region] = True
    return seen


def outputs(workload):
    return grouped.outputs(workload, sees)


def allowed_pairs(place, window):
    return grouped.allowed_pairs(place, sees)
