"""Fitted terms as a table of words with units."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from workbench.analysis import (
    depends_on_time,
    host_bound,
    kinds,
    marks,
    short_names,
    together,
)
from workbench.figures import in_order, interval, quantity
from workbench.telling.text import listed
from workbench.vocabulary.metrics import METRICS
from workbench.vocabulary.units import digits

COLUMNS = (
    "metric",
    "system",
    "c, per token²",
    "for 4× the tokens",
    "shape",
    "points",
    "b, per token",
    "a, at |V| = 0",
    "source, device",
    "what is open",
)
EXACT = 1e-9
"""Relative scatter below which a curve is exact, and a bound on a missing term mere rounding."""
EXACT_DIGITS = 6
"""Digits of a term whose interval is narrower than they can show."""
REFUTED = {"constant": ("b", "c"), "linear": ("c",)}
"""The terms that each shape does without."""


def fit_rows(
    fits: pd.DataFrame, cells: pd.DataFrame
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Columns and rows of the table of fits: each term with its 95 % interval and unit.

    ``cells`` are the records that were fitted, whose marks stand behind the source and device.
    Systems have their short names: the table's title says what all share.
    """
    metrics, systems = list(fits["metric"].unique()), in_order(fits)
    short, marks_of_line = short_names(systems), _marks_of(cells, metrics)
    rows = sorted(
        fits.to_dict("records"),
        key=lambda row: (
            metrics.index(row["metric"]),
            row["source"],
            row["device"],
            systems.index(row["series"]),
        ),
    )
    return COLUMNS, tuple(
        (
            METRICS[row["metric"]].label,
            short[row["series"]],
            _term(row, "c"),
            growth_words(row),
            _shape(row),
            _points(row),
            *(_term(row, name) for name in ("b", "a")),
            f"{row['source']}, {row['device']}{marks_of_line[_line(row)]}",
            str(row["note"]),
        )
        for row in rows
    )


def _marks_of(cells: pd.DataFrame, metrics: Sequence[str]) -> dict[tuple[str, ...], str]:
    """(metric, series, source, device) to ' (emulated, cold)': the marks of the records that each
    line was fitted to; empty for none.
    """
    words: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    waited = host_bound(cells)
    # A narrow table: rows of one with every metric are slow to take.
    columns = (*_PLACE, "flags", "num_samples")
    narrow = cells[list(columns)]
    for metric in metrics:
        fitted = cells[metric].notna().to_numpy()
        own = narrow[fitted & ~waited if depends_on_time(metric) else fitted]
        # Thousands of records share a few combinations of flags.
        for row in kinds(own, columns).distinct.to_dict("records"):
            key = (metric, *(str(row[name]) for name in _PLACE))
            words.setdefault(key, []).append(marks(row, depends_on_time(metric)))
    joined = {key: together(each) for key, each in words.items()}
    return {key: f" ({each})" if each else "" for key, each in joined.items()}


_PLACE = ("series", "source", "device")


def _line(row: Mapping[Any, Any]) -> tuple[str, ...]:
    return str(row["metric"]), *(str(row[name]) for name in _PLACE)


def _shape(row: Mapping[Any, Any]) -> str:
    return "open" if pd.isna(row["shape"]) else str(row["shape"])


def _points(row: Mapping[Any, Any]) -> str:
    """How many, and which were left out because the host set their pace."""
    excluded = row["host_bound"]
    if not excluded:
        return f"{row['num_points']:,}"
    return f"{row['num_points']:,}, without {listed([f'{at:,}' for at in excluded])} (host-bound)"


def growth_words(row: Mapping[Any, Any]) -> str:
    """'×6.83 (16,384 to 65,536)': what four times the tokens take, and between which |V|."""
    if pd.isna(row["growth"]):
        return "sizes too close"
    return f"×{digits(row['growth'])} ({row['grows_from']:,.0f} to {row['grows_to']:,.0f})"


def _term(row: Mapping[Any, Any], name: str) -> str:
    """One term: '403 MFLOP (402 to 404)', and whether it can be told from zero."""
    unit = METRICS[row["metric"]].unit
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if pd.isna(value):
        return "too few points"
    if name in REFUTED.get(row["shape"], ()):
        nothing = pd.isna(high) or high <= 0 or row["scatter"] < EXACT
        bound = "" if nothing else f", at most {quantity(high, unit)}"
        return f"none found{bound}"
    if pd.isna(low):
        return quantity(value, unit)
    if quantity(low, unit, EXACT_DIGITS) == quantity(high, unit, EXACT_DIGITS):
        return quantity(value, unit, EXACT_DIGITS)
    return interval(value, low, high, unit)
