"""Round by round and pair by pair, with the members of every token as a list."""

import torch

SETTINGS = "keep=0.3"


def merged(keys, left):
    """Members of every token that is left, in order; keys are [N, K]."""
    members = [[i] for i in range(len(keys))]
    while len(members) > left:
        means = [keys[group].mean(0) for group in members]
        even, odd = range(0, len(members), 2), range(1, len(members), 2)
        found = []
        for i in even:
            like = [float(torch.cosine_similarity(means[i], means[j], dim=0)) for j in odd]
            found.append((max(like), i, odd[like.index(max(like))]))
        found.sort(key=lambda pair: -pair[0])
        gone = min(len(members) // 2, len(members) - left)
        for _, i, j in found[:gone]:
            members[j] = members[j] + members[i]
            members[i] = []
        members = sorted((group for group in members if group), key=min)
    return members


def reduced(reducer, module, x, grid, keys):
    left = -(-grid.tokens * 3 // 10)
    return torch.stack(
        [
            torch.stack([image[group].mean(0) for group in merged(of_image, left)])
            for image, of_image in zip(x, keys, strict=True)
        ]
    )
