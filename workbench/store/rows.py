"""A Record as a row of the store and back; values stay exact."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from workbench.inputs.files import MAX_DIGITS
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.fields import MAX_TOKENS
from workbench.vocabulary.metrics import METRICS
from workbench.vocabulary.record import Environment, Record

T = TypeVar("T")

CellId = tuple[str, str, str]
"""(cell key, source, device): what a record is within its run."""
RecordId = tuple[str, str, str, str]
"""(run, cell key, source, device): what a record is within its store."""

COLUMNS = (
    "key",
    "source",
    "device",
    "status",
    "started_at",
    "duration_s",
    "num_samples",
    "num_visual",
    "cell",
    "metrics",
    "flags",
    "error",
    "environment",
    "samples",
    "details",
)

load = partial(from_json, allow_inf_nan=False)
"""JSON of a row. Raises ValueError; integers of any size and floats come back exactly."""

MOST = 1e100
"""No count, size or time is larger; what is computed of larger ones overflows."""
SHORT = 10_000
"""Characters of a text that is worth remembering."""
EXACT = 2**63
"""Integers below are numbers for every reader of JSON; others are written as text."""


def dump(value: Any) -> str:
    """Compact JSON."""
    return to_json(value).decode()


def unit_of(metric: str) -> str:
    """The unit of a registered metric, empty for any other."""
    return METRICS[metric].unit if metric in METRICS else ""


def encode(record: Record, run_environment: Environment) -> tuple[Any, ...]:
    """``record`` in the order of COLUMNS. The environment is kept where it is not the run's."""
    cell, own = record.cell, record.environment
    return (
        cell.key,
        record.source,
        record.device,
        record.status.value,
        record.started_at,
        record.duration_s,
        max(map(len, record.samples.values()), default=0),
        cell.num_visual,
        # As in the key: defaults never change, so they need not be written. |V| has a column of
        # its own, and so the many cells of a sweep share a few texts.
        cell.model_dump_json(by_alias=True, exclude_defaults=True, exclude={"num_visual"}),
        metrics_text(record.metrics),
        dump(record.flags),
        record.error,
        None if own == run_environment else own.model_dump_json(),
        dump(record.samples),
        dump(record.details),
    )


def metrics_text(metrics: dict[str, int | float | None]) -> str:
    """Metrics as JSON; integers beyond 63 bits as decimal text, which every reader keeps exact."""
    beyond = {
        name: str(value)
        for name, value in metrics.items()
        if value.__class__ is int and not -EXACT <= value < EXACT
    }
    return dump({**metrics, **beyond} if beyond else metrics)


def exact(value: Any) -> int | float | None:
    """A metric's value as it was recorded, from its form in the store.

    Raises ValueError for text that is no integer, and for a number beyond MOST.
    """
    if isinstance(value, str) and len(value) > MAX_DIGITS + 1:
        raise ValueError(f"an integer of {len(value):,} digits")
    number = int(value) if isinstance(value, str) else value
    if number is not None and not -MOST <= number <= MOST:
        raise ValueError(f"a number beyond {MOST:g}, which no count, size or time is")
    return number


def cell_fields(num_visual: int, text: str) -> dict[str, Any]:
    """All fields of a cell under their public names; raises ValueError for an impossible one."""
    return Cell.model_validate({**load(text), "num_visual": num_visual}).document()


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_TOKENS:
        raise ValueError(f"num_visual {value!r:.80}: a whole number up to {MAX_TOKENS:,}")
    return value


def remember(parse: Callable[[str], T]) -> Callable[[str], T]:
    """``parse`` that remembers short texts, of which the rows of a store share a few."""
    remembering = lru_cache(1024)(parse)
    return lambda text: remembering(text) if len(text) < SHORT else parse(text)


@remember
def cell_of(text: str) -> tuple[Cell, Callable[[int], str]]:
    """The cell of a text at |V| = 1, and its key at any."""
    cell = Cell.model_validate({**load(text), "num_visual": 1})
    return cell, cell.key_at()


@remember
def environment_of(text: str) -> Environment:
    return Environment.model_validate(load(text))


def decode(row: Sequence[Any], run_environment: str) -> Record:
    """The inverse of ``encode``; raises ValueError with one line where the row makes no sense."""
    values = dict(zip(COLUMNS, row, strict=True))
    try:
        cell, key_at = cell_of(values["cell"])
        num_visual = _count(values["num_visual"])
        record = Record(
            cell=cell.at(num_visual),
            source=values["source"],
            device=values["device"],
            status=values["status"],
            metrics={name: exact(value) for name, value in load(values["metrics"]).items()},
            samples=load(values["samples"]),
            flags=load(values["flags"]),
            error=values["error"],
            details=load(values["details"]),
            environment=environment_of(values["environment"] or run_environment),
            started_at=values["started_at"],
            duration_s=values["duration_s"],
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"record {values['key']}: {where}: {first['msg']}") from None
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"record {values['key']}: {error}") from None
    for name, samples in record.samples.items():
        if samples and not -MOST <= min(samples) <= max(samples) <= MOST:
            raise ValueError(f"record {values['key']}: samples of {name} beyond {MOST:g}")
    if (key := key_at(num_visual)) != values["key"]:
        raise ValueError(f"record {values['key']}: its cell has the key {key}")
    return record
