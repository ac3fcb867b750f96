"""Long-short distance attention: a token sees those of its group."""

import torch

from tests.lvlm.definitions import grouped

WIDTH = 5
SETTINGS = f"width={WIDTH}"
REFUSED = ("cohere2", "exaone4", "gemma2", "gemma3", "gemma4", "llama4")
"""Their sliding windows, and chunks."""


def sees(q, k, tokens, place, width=WIDTH):
    at = torch.arange(tokens)
    group = at % -(-tokens // width) if place.role == "long" else at // width
    return (group[:, None] == group[None, :]).expand(q.shape[0], -1, -1)


def outputs(workload):
    return grouped.outputs(workload, sees)


def allowed_pairs(place, window):
    return grouped.allowed_pairs(place, sees)
