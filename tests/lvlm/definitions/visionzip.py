"""Token by token."""

import torch

SETTINGS = "dominant=2,contextual=2"


def zipped(x, importance, keys):
    ranked = sorted(range(len(x)), key=lambda i: -importance[i])
    kept, rest = sorted(ranked[:2]), sorted(ranked[2:])
    targets = [rest[0], rest[len(rest) // 2]]
    chose = {target: [] for target in targets}
    for i in rest:
        if i not in targets:
            like = [torch.cosine_similarity(keys[i], keys[t], dim=0) for t in targets]
            chose[targets[int(like[1] > like[0])]].append(x[i])
    found = [x[t] + (torch.stack(chose[t]).mean(0) if chose[t] else 0) for t in targets]
    return torch.stack([*x[kept], *found])


def reduced(reducer, module, x, grid, importance, keys):
    return torch.stack([zipped(*of_image) for of_image in zip(x, importance, keys, strict=True)])
