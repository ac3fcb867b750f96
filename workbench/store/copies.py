"""Rows that go from one store into another: checked as records are, but left as they are written.

To build a record of every row and to write it down again takes most of the time of a merge. A row
that is already written as ``encode`` writes it is passed on; any other takes the long way, which
also says what is wrong with it. A test holds the two against each other.
"""

from collections.abc import Sequence
from math import isfinite
from typing import Any, get_args

from workbench.store.rows import (
    COLUMNS,
    EXACT,
    MOST,
    cell_of,
    decode,
    dump,
    encode,
    environment_of,
    exact,
    load,
    metrics_text,
    remember,
)
from workbench.vocabulary.fields import MAX_TOKENS, Source
from workbench.vocabulary.record import Status

Row = tuple[Any, ...]
"""A row in the order of COLUMNS, with its environment in full."""

ENVIRONMENT = COLUMNS.index("environment")
_SOURCES = frozenset(get_args(Source))
_STATUSES = frozenset(status.value for status in Status)
_NUMBERS = frozenset({int, float})


def sound_row(row: Sequence[Any], run_environment: str) -> tuple[Row, dict[str, Any]]:
    """A row as ``encode`` writes the record that ``decode`` reads from it, and its metrics.

    Its environment is there in full, also where it is the run's. Raises ValueError with one line,
    as ``decode`` does.
    """
    try:
        metrics = _metrics_as_written(row, run_environment)
    except (ValueError, TypeError, AttributeError, ArithmeticError):
        metrics = None  # ``decode`` says what is wrong.
    if metrics is not None:
        facts = _environment_text(row[ENVIRONMENT] or run_environment)
        return with_environment(row, facts), metrics
    record = decode(row, run_environment)
    row = encode(record, record.environment)
    return with_environment(row, record.environment.model_dump_json()), record.metrics


def with_environment(row: Sequence[Any], environment: str | None) -> Row:
    """The row with another environment; none where it is the run's."""
    return (*row[:ENVIRONMENT], environment, *row[ENVIRONMENT + 1 :])


def _metrics_as_written(row: Sequence[Any], run_environment: str) -> dict[str, Any] | None:
    """The metrics of a row that ``encode`` would write so; None where that is not certain.

    Raises what ``decode`` turns into one line.
    """
    key, source, device, status, started_at, duration_s, num_samples, num_visual = row[:8]
    cell, metrics_json, flags, error, environment, samples, details = row[8:]
    plain, key_at = _written_cell(cell)
    _environment_text(environment or run_environment)
    if (
        plain is None
        or num_visual.__class__ is not int
        # A cell that is sound at |V| = 1 is so at any, but for one without any token.
        or not (0 if plain.num_text else 1) <= num_visual <= MAX_TOKENS
        or key_at(num_visual) != key
        or source not in _SOURCES
        or status not in _STATUSES
        or device.__class__ is not str
        or started_at.__class__ is not str
        or not (duration_s is None or (duration_s.__class__ is float and isfinite(duration_s)))
        or not (error is None or error.__class__ is str)
        or not _are_flags(flags)
        or num_samples.__class__ is not int
        or _most_samples(samples) != num_samples
        or not _are_details(details)
    ):
        return None
    metrics = load(metrics_json)
    numbers = metrics.values()
    if _NUMBERS.issuperset(map(type, numbers)) and max(map(abs, numbers), default=0) < EXACT:
        return metrics if dump(metrics) == metrics_json else None
    metrics = {name: exact(value) for name, value in metrics.items()}
    is_same = not any(value.__class__ is bool for value in metrics.values())
    return metrics if is_same and metrics_text(metrics) == metrics_json else None


@remember
def _written_cell(text: str) -> tuple[Any, Any]:
    """The cell and its keys as ``cell_of`` reads them; no cell where it is written otherwise."""
    cell, key_at = cell_of(text)
    document = cell.model_dump_json(by_alias=True, exclude_defaults=True, exclude={"num_visual"})
    return (cell if document == text else None), key_at


@remember
def _environment_text(text: str) -> str:
    return environment_of(text).model_dump_json()


@remember
def _are_flags(text: str) -> bool:
    flags = load(text)
    return flags.__class__ is list and {str}.issuperset(map(type, flags)) and dump(flags) == text


@remember
def _most_samples(text: str) -> int | None:
    """How many samples the longest list has; None where they would be written otherwise."""
    samples = load(text)
    for numbers in samples.values():
        if numbers.__class__ is not list or not {float}.issuperset(map(type, numbers)):
            return None
        if max(map(abs, numbers), default=0.0) > MOST:
            return None
    return max(map(len, samples.values()), default=0) if dump(samples) == text else None


@remember
def _are_details(text: str) -> bool:
    details = load(text)
    return details.__class__ is dict and dump(details) == text
