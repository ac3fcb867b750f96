"""Experts: an MLP of several, of which a router chooses some for each token."""

from typing import NamedTuple


class Experts(NamedTuple):
    """How many there are in a layer."""

    active: int
    """Those that a token meets."""
    total: int
    every: bool = False
    """Whether every token is multiplied with all of them, those not chosen with zeros."""
