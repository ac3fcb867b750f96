"""What a panel draws over |V|: one system at one place as cells, and the fitted curve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.analysis import depends_on_time
from workbench.figures.style import Look

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One system from one source on one device: its cells by growing |V|."""

    series: str
    source: str
    device: str
    look: Look
    dash: str
    rows: Sequence[Row]

    @property
    def symbol(self) -> str:
        """Filled where measured, hollow where predicted."""
        return self.look.symbol + ("" if self.source == "measured" else "-open")

    def symbols(self, rows: Sequence[Row], metric: str) -> str | list[str]:
        """One for all rows, or one each: measured seconds that are the host's are hollow too."""
        if self.source != "measured" or not depends_on_time(metric):
            return self.symbol
        waited = [bool(row.get("host_bound")) for row in rows]
        hollow = f"{self.look.symbol}-open"
        return [hollow if w else self.symbol for w in waited] if any(waited) else self.symbol


@dataclass(frozen=True)
class Curve:
    """A fitted curve and its band, in base units."""

    num_visual: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Crossing:
    """Where the curve of one system becomes the lower one."""

    metric: str
    series: str
    source: str
    device: str
    baseline: str
    num_visual: float


def known(value: Any) -> bool:
    """Whether a cell has that metric."""
    return value is not None and value == value
