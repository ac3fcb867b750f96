"""Image by image, cluster by cluster."""

import torch

SETTINGS = "keep=0.25,clusters=0.2,iterations=3"


def clustered(x, importance):
    kept, clusters = -(-len(x) // 4), -(-len(x) // 5)
    ranked = sorted(range(len(x)), key=lambda i: -importance[i])
    rest = sorted(ranked[kept:])
    clusters = min(clusters, len(rest))
    found = [(i, x[i]) for i in ranked[:kept]]
    seeds = [rest[c * (len(rest) // clusters)] for c in range(clusters)] if clusters else []
    centres = [x[i].detach() for i in seeds]
    for round_ in range(4):
        members = [[] for _ in centres]
        for i in rest if clusters else []:
            like = [torch.cosine_similarity(x[i].detach(), c, dim=0) for c in centres]
            members[like.index(max(like))].append(i)
        means = [x[own].mean(0) if own else c for own, c in zip(members, centres, strict=True)]
        if round_ < 3:
            centres = [mean.detach() for mean in means]
    for own, seed, mean in zip(members, seeds, means, strict=True):
        found.append((min(own, default=seed), mean))
    return torch.stack([mean for _, mean in sorted(found, key=lambda pair: pair[0])])


def reduced(reducer, module, x, grid, importance):
    return torch.stack([clustered(*image) for image in zip(x, importance, strict=True)])
