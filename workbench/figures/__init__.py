"""DataFrame in, plotly figure out. Nothing here reads or writes anything."""

from workbench.figures.agreement import agreement
from workbench.figures.axes import TOKENS, Axes, Reading
from workbench.figures.lines import Crossing
from workbench.figures.memory import UNSPLIT, memory
from workbench.figures.roofline import Ceilings, placed, roofline
from workbench.figures.scaling import SCALING_METRICS, multiples, scaling
from workbench.figures.spent import spent
from workbench.figures.style import DARK, LIGHT, THEMES, Look, Theme, in_order, looks, place_names
from workbench.figures.thresholds import thresholds
from workbench.vocabulary.units import interval, quantity

__all__ = [
    "DARK",
    "LIGHT",
    "SCALING_METRICS",
    "THEMES",
    "TOKENS",
    "UNSPLIT",
    "Axes",
    "Ceilings",
    "Crossing",
    "Look",
    "Reading",
    "Theme",
    "agreement",
    "in_order",
    "interval",
    "looks",
    "memory",
    "multiples",
    "place_names",
    "placed",
    "quantity",
    "roofline",
    "scaling",
    "spent",
    "thresholds",
]
