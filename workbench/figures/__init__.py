"""DataFrame in, plotly figure out. Nothing here reads or writes anything."""

from workbench.figures.panel import Axes
from workbench.figures.scaling import SCALING_METRICS, scaling
from workbench.figures.style import DARK, LIGHT, THEMES, Look, Theme, in_order, looks, place_names
from workbench.figures.units import interval, quantity

__all__ = [
    "DARK",
    "LIGHT",
    "SCALING_METRICS",
    "THEMES",
    "Axes",
    "Look",
    "Theme",
    "in_order",
    "interval",
    "looks",
    "place_names",
    "quantity",
    "scaling",
]
