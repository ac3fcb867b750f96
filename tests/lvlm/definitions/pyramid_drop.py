"""PyramidDrop leaves a layer as it is; test_pruning.py defines what is between layers."""

from workbench.lvlm.attention.pruning import places_in

SETTINGS = "stages=2"
"""Tokens leave before the second layer of two."""


def allowed_pairs(place, window):
    """Those of S-Attn on the tokens that are there, each at its own position."""
    there = [p for visual in (True, False) for p in places_in(place.layout, visual).tolist()]
    return sum(0 <= i - j < (window or place.layout.length + i) for i in there for j in there)
