"""A Record as a row of the store and back, and many rows as one wide table; values stay exact."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from workbench.record import METRICS, Environment, Record
from workbench.spec import Cell

if TYPE_CHECKING:
    import pandas as pd

Identity = tuple[str, str, str]
"""(cell key, source, device): what a record is within its run."""

COLUMNS = (
    "key", "source", "device", "status", "started_at", "duration_s", "num_samples", "num_visual",
    "cell", "metrics", "flags", "error", "environment", "samples", "details",
)  # fmt: skip

_WORDS = ("key", "source", "device", "status", "started_at")
FRAME_COLUMNS = (
    *_WORDS, "duration_s", "num_samples", "num_visual", "cell", "metrics", "flags", "error",
)  # fmt: skip
"""What ``wide`` needs of a record."""

FIELDS = {name: field.alias or name for name, field in Cell.model_fields.items()}
"""The fields of a cell and their public names."""

load = partial(from_json, allow_inf_nan=False)
"""JSON of a row. Raises ValueError; integers of any size and floats come back exactly."""

_EXACT = 2**63


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
        if value.__class__ is int and not -_EXACT <= value < _EXACT
    }
    return dump({**metrics, **beyond} if beyond else metrics)


def exact(value: Any) -> int | float | None:
    """A metric's value as it was recorded, from its form in the store.

    Raises ValueError for text that is no integer, and for one that no float can stand in for.
    """
    number = int(value) if isinstance(value, str) else value
    if isinstance(number, int) and number.bit_length() > 1000:
        raise ValueError("an integer of more than 1000 bits")
    return number


def cell_fields(num_visual: int, text: str) -> dict[str, Any]:
    """All fields of a cell under their public names; raises ValueError for an impossible one."""
    return Cell.model_validate({**load(text), "num_visual": num_visual}).document()


def decode(row: Sequence[Any], run_environment: str) -> Record:
    """The inverse of ``encode``; raises ValueError with one line where the row makes no sense."""
    values = dict(zip(COLUMNS, row, strict=True))
    try:
        record = Record(
            cell=Cell.model_validate({**load(values["cell"]), "num_visual": values["num_visual"]}),
            source=values["source"],
            device=values["device"],
            status=values["status"],
            metrics={name: exact(value) for name, value in load(values["metrics"]).items()},
            samples=load(values["samples"]),
            flags=load(values["flags"]),
            error=values["error"],
            details=load(values["details"]),
            environment=Environment.model_validate(load(values["environment"] or run_environment)),
            started_at=values["started_at"],
            duration_s=values["duration_s"],
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"record {values['key']}: {where}: {first['msg']}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"record {values['key']}: {error}") from None
    if record.cell.key != values["key"]:
        raise ValueError(f"record {values['key']}: its cell has the key {record.cell.key}")
    return record


def wide(
    columns: Mapping[str, Sequence[Any]], metrics: Iterable[str] | None = None
) -> "dict[str, pd.Series]":
    """The columns of ``frame``, but those of the run, from the FRAME_COLUMNS of every record.

    Metrics are float64; one that holds an integer beyond 63 bits is a column of Python numbers.
    Raises ValueError, TypeError, AttributeError or OverflowError where a row makes no sense.
    """
    import pandas as pd

    found = {name: pd.Series(columns[name], dtype="str") for name in _WORDS}
    found["duration_s"] = pd.Series(columns["duration_s"], dtype="float64")
    found |= _metrics(columns["metrics"], None if metrics is None else set(metrics))
    counted = pd.Series(columns["num_samples"], dtype="float64")
    known = found.get("num_samples")
    found["num_samples"] = counted if known is None else known.fillna(counted)
    found |= _cells(columns["num_visual"], columns["cell"])
    texts, words = _once(columns["flags"], lambda text: tuple(map(str, load(text))))
    found["flags"] = pd.Series(words, dtype=object).take(texts).reset_index(drop=True)
    found["error"] = pd.Series(columns["error"], dtype=object)
    return found


def _once(texts: Sequence[str], parse: Any) -> tuple[Any, list[Any]]:
    """Parse each distinct text once: (index into the results for every text, the results)."""
    import pandas as pd

    codes, distinct = pd.factorize(pd.Series(texts, dtype="str"))
    return codes, [parse(text) for text in distinct]


def _metrics(values: Sequence[str], wanted: set[str] | None) -> "dict[str, pd.Series]":
    import numpy as np
    import pandas as pd

    # One long document is parsed in a fraction of the time that its parts would take one by one.
    text = f"[{','.join(values)}]"
    documents = load(text)
    if len(documents) != len(values):
        raise ValueError("a row holds more than one document")
    extra = sorted(set().union(*documents) - set(METRICS))
    names = [name for name in (*METRICS, *extra) if wanted is None or name in wanted]
    if ':"' in text or not names:
        objects = {name: [exact(doc.get(name)) for doc in documents] for name in names}
        return {name: _numbers(column) for name, column in objects.items()}
    chosen = itemgetter(*names)
    try:
        rows = list(map(chosen, documents))
    except KeyError:
        blank = dict.fromkeys(names)
        rows = [chosen(blank | doc) for doc in documents]
    table = np.array(rows, dtype=np.float64)
    if np.isinf(table).any():
        raise ValueError("a metric is not finite")
    table = table.reshape(len(documents), len(names))
    return {name: pd.Series(table[:, i]) for i, name in enumerate(names)}


def _numbers(values: list[Any]) -> "pd.Series":
    import pandas as pd

    beyond = any(isinstance(value, int) and abs(value) >= 2**63 for value in values)
    return pd.Series(values, dtype=object if beyond else "float64")


def _cells(num_visual: Sequence[int], cells: Sequence[str]) -> "dict[str, pd.Series]":
    import pandas as pd

    # |V| = 1 stands in: whatever |V| is, the other fields of these cells are the same.
    index, distinct = _once(cells, lambda text: cell_fields(1, text))
    columns = {}
    for name, public in FIELDS.items():
        field = Cell.model_fields[name]
        # Optional fields stay Python objects: None must not turn into NaN, nor 2 into 2.0.
        optional = not field.is_required() and field.default is None
        column = pd.Series([doc[public] for doc in distinct], dtype=object if optional else None)
        columns[public] = column.take(index).reset_index(drop=True)
    columns["num_visual"] = pd.Series(num_visual, dtype="int64")
    return columns
