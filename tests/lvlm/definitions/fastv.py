"""FastV leaves a layer as it is; test_pruning.py defines what happens between layers."""

import torch

from tests.lvlm.oracle import near
from workbench.lvlm.attention.pruning import places_in

SETTINGS = "at=1"
"""Tokens leave before the second layer of two."""


def allowed_pairs(place, window):
    """Those of S-Attn on the tokens that are there, each at its own position."""
    there = [torch.from_numpy(places_in(place.layout, visual)) for visual in (True, False)]
    row, key = (torch.cat(there).unsqueeze(dim) for dim in (1, 0))
    return int(((row >= key) & near(row, key, window)).sum())
