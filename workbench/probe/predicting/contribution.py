"""What a prediction is put together of: what one thing adds to a cell's record."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Metrics = dict[str, int | float | None]
Overlap = Callable[[float | None], float | None]
"""Seconds of an iteration (None where they are unknown) -> seconds with something more in it."""


def unchanged(seconds: float | None) -> float | None:
    """Seconds of an iteration that something adds no time to."""
    return seconds


@dataclass(frozen=True)
class Contribution:
    """What one thing, such as the collectives of ZeRO, adds to a predicted record."""

    metrics: Metrics = field(default_factory=dict)
    flags: Sequence[str] = ()
    details: dict[str, Any] = field(default_factory=dict)
    overlapped_with: Overlap = unchanged


@dataclass
class Contributions:
    """The sum of contributions: later metrics and details go before earlier ones of that name."""

    metrics: Metrics = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = 0.0
    """Of an iteration with everything so far; None where a figure is missing."""

    def add(self, contribution: Contribution) -> None:
        """Take one more."""
        self.metrics |= contribution.metrics
        self.flags += contribution.flags
        self.details |= contribution.details
        self.seconds = contribution.overlapped_with(self.seconds)
