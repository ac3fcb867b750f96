"""The names that probes written before version 0.2 import from here; newer ones: ``workbench``."""

from workbench.vocabulary.cell import Cell, make_cell
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.sweep import Grid, Point, Sweep, geometric

__all__ = ["Cell", "Grid", "Point", "Protocol", "Sweep", "geometric", "make_cell"]
