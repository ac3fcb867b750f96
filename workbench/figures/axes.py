"""Axes of a panel: which are logarithmic, the unit of |V|, and where the ticks are."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reading:
    """A unit in which |V| is read: its name, and the tokens of one."""

    title: str
    tokens: float


VISUAL_TITLE = "visual tokens |V|"
TOKENS = Reading(VISUAL_TITLE, 1)


@dataclass(frozen=True)
class Axes:
    """Which axes are logarithmic."""

    log_x: bool = True
    log_y: bool = True


def log_ticks(low: float, high: float) -> dict[str, Any]:
    """Powers of ten, or 1, 2, 5 where those are few; exponents in, values out."""
    steps = (1,) if high - low > 2.3 else (1, 2, 5)
    powers = range(math.floor(low), math.ceil(high) + 1)
    at = [step * 10.0**power for power in powers for step in steps]
    at = [value for value in at if low <= math.log10(value) <= high]
    if len(at) < 3:
        return {"nticks": 7, "tickformat": ",.6~g"}
    words = [f"{v:,.0f}" if v >= 1 else f"{v:.12f}".rstrip("0") for v in at]
    return {"tickvals": at, "ticktext": words}


def ticks(low: float, high: float, log: bool) -> dict[str, Any]:
    """The ticks of an axis of values; the ends of a logarithmic one are exponents."""
    if log:
        return log_ticks(low, high)
    return {"nticks": 7, "tickformat": ",.4~f" if high - low > 0.01 else ",.4~g"}


def visual_axis(
    visual: Sequence[float], log: bool, labels: int, reading: Reading = TOKENS
) -> dict[str, Any]:
    """The axis of |V| over ``visual``, its labels in the units of ``reading``."""
    low, high = min(visual), max(visual)
    if not log:
        ends = {"type": "linear", "range": [0, high * 1.04]}
        if reading == TOKENS:
            return {**ends, "tickformat": "~s", "nticks": 6}
        step = _step(high / reading.tokens / 6)
        units = [step * i for i in range(int(high / reading.tokens / step) + 2)]
        return {**ends, **_labels(units, reading)}
    span = max(math.log10(high / low), 0.3)
    first = math.floor(math.log2(low / reading.tokens))
    last = math.ceil(math.log2(high / reading.tokens))
    # Sweeps double |V|, so powers of two are where the points are.
    step = max(1, math.ceil((last - first) / labels))
    return {
        "type": "log",
        **_labels([2.0**power for power in range(first, last + 1, step)], reading),
        "range": [math.log10(low) - 0.05 * span, math.log10(high) + 0.05 * span],
    }


def _step(rough: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(each for each in (1, 2, 5, 10) if each * power >= rough)


def _labels(units: Sequence[float], reading: Reading) -> dict[str, Any]:
    words = [f"{v:,.0f}" if v >= 1 and float(v).is_integer() else f"{v:,.3g}" for v in units]
    return {"tickvals": [v * reading.tokens for v in units], "ticktext": words}


def close_together(levels: Mapping[str, float], apart: float) -> list[list[str]]:
    """Names by growing level, together where the next is less than ``apart`` above the last."""
    groups: list[list[str]] = []
    for name in sorted(levels, key=lambda name: (levels[name], name)):
        if groups and levels[name] - levels[groups[-1][-1]] < apart:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups
