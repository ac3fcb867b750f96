"""A store as plain files: tables as CSV and, with pyarrow, as Parquet; the rest as JSON.

docs/schema.md describes the columns. Values are exact: in CSV every number is written so that
reading it gives the same number, integers of any size in full, and text is written as it is; in
Parquet, which has no such integers, ``value`` is the nearest double and ``value_exact`` the number
as text.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from workbench.store import RecordId, Store, StoreError
from workbench.store.inert import inert
from workbench.vocabulary.cell import FIELDS, Cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.record import Record

IDENTITY = ("run", "key", "source", "device")
CELL = tuple(FIELDS)
RECORDS = (*IDENTITY, "status", "started_at", *CELL, "duration_s", "num_samples", "flags", "error")
METRICS = (*IDENTITY, "metric", "value", "unit")
SAMPLES = (*IDENTITY, "metric", "index", "value")
NOTES = (*IDENTITY, "text", "tags")

Rows = list[tuple[Any, ...]]


class Export(NamedTuple):
    """What was written."""

    files: list[Path]
    notes: list[str]
    """What was left out and why, in lines."""


def export(
    store_path: str | Path,
    folder: str | Path,
    safe: bool = False,
    known: Mapping[RecordId, Record] | None = None,
) -> Export:
    """Write a store into ``folder``, creating it: the tables ``records``, ``metrics``, ``samples``
    and ``notes``, ``details.jsonl`` and ``environment.json``.

    With ``safe`` the CSV files are for a spreadsheet: a text that it might run as a formula
    begins with ``'``, and all text is quoted. The other files are the same with and without.
    ``known`` are records that were read from it before, and are not read again.
    Each file appears whole or not at all. Raises RequestError where the store cannot be read or
    the folder is a file, and StoreError where the folder cannot be written.
    """
    with Store.open(store_path) as store:
        units, runs, notes_on = store.units(), store.runs(), store.notes()
        items = [
            ((run, record.cell.key, record.source, record.device), record)
            for run, record in store.items(known=known)
        ]
    tables = {
        "records": (RECORDS, [_record(*item) for item in items]),
        "metrics": (METRICS, [row for item in items for row in _metrics(*item, units)]),
        "samples": (SAMPLES, [row for item in items for row in _samples(*item)]),
        "notes": (
            NOTES,
            [(*of, note.text, ", ".join(note.tags)) for of, note in notes_on.items()],
        ),
    }
    details = (
        {**dict(zip(IDENTITY, identity, strict=True)), "details": record.details}
        for identity, record in items
    )
    environments = {
        run.id: {"started_at": run.started_at, **run.environment.model_dump(mode="json")}
        for run in runs
    }
    out = Path(folder)
    files, notes = [], []
    has_arrow = find_spec("pyarrow") is not None
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, (columns, rows) in tables.items():
            files.append(_csv(out / f"{name}.csv", columns, rows, safe))
            if has_arrow:
                files.append(_parquet(out / f"{name}.parquet", name, columns, rows))
        files.append(_lines(out / "details.jsonl", details))
        files.append(_lines(out / "environment.json", [environments], indent=1))
    except FileExistsError:
        raise RequestError(f"folder {str(out)!r}: is a file; name a folder") from None
    except OSError as error:
        reason = error.strerror or error
        raise StoreError(f"folder {str(out)!r}: cannot be written: {reason}") from error
    if not has_arrow:
        notes.append("no Parquet: pyarrow is missing; pip install pyarrow")
    return Export(files, notes)


def _record(identity: RecordId, record: Record) -> tuple[Any, ...]:
    cell = record.cell.document()
    return (
        *identity,
        record.status.value,
        record.started_at,
        *(cell[name] for name in CELL),
        record.duration_s,
        max(map(len, record.samples.values()), default=0),
        "; ".join(record.flags),
        record.error,
    )


def _metrics(
    identity: RecordId, record: Record, units: dict[str, str]
) -> Iterator[tuple[Any, ...]]:
    for name, value in record.metrics.items():
        yield (*identity, name, value, units.get(name, ""))


def _samples(identity: RecordId, record: Record) -> Iterator[tuple[Any, ...]]:
    for name, values in record.samples.items():
        for index, value in enumerate(values):
            yield (*identity, name, index, value)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of ``path`` once it is complete."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]], safe: bool) -> Path:
    with _whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        if safe:
            writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
            rows = (tuple(map(inert, row)) for row in rows)
        else:
            writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def _lines(path: Path, documents: Iterable[Any], indent: int | None = None) -> Path:
    """A JSON document a line."""
    encode = json.JSONEncoder(sort_keys=True, indent=indent).encode
    with _whole(path) as part, part.open("w", encoding="utf-8") as file:
        file.writelines(f"{encode(document)}\n" for document in documents)
    return path


def _parquet(path: Path, table: str, columns: Sequence[str], rows: Rows) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    by_name = dict(
        zip(columns, zip(*rows, strict=True) if rows else [()] * len(columns), strict=True)
    )
    types = {name: _arrow_type(name) for name in columns}
    if table == "metrics":
        by_name["value_exact"] = tuple(None if v is None else str(v) for v in by_name["value"])
        by_name["value"] = tuple(None if v is None else float(v) for v in by_name["value"])
        types["value_exact"] = pa.string()
    schema = pa.schema(types.items())
    text = {name for name, kind in types.items() if kind == pa.string()}
    arrays = {
        name: _texts(values) if name in text else list(values) for name, values in by_name.items()
    }
    # Arrow opens no name that is no UTF-8.
    with _whole(path) as part, part.open("wb") as file:
        parquet.write_table(pa.table(arrays, schema=schema), file)
    return path


def _texts(values: Sequence[Any]) -> Sequence[str | None]:
    """Text as it is; a column that also holds numbers, as ``memory_cap`` may, all as text."""
    if set(map(type, values)) <= {str, type(None)}:
        return values
    return [None if v is None else str(v) for v in values]


@cache
def _fields() -> dict[str, Any]:
    return Cell.model_json_schema()["properties"]


def _arrow_type(column: str) -> Any:
    """From the cell's own schema, so that an empty store gives the same columns as a full one."""
    import pyarrow as pa

    fixed = {
        "value": pa.float64(),
        "duration_s": pa.float64(),
        "index": pa.int64(),
        "num_samples": pa.int64(),
    }
    field = _fields().get(column, {"type": "string"})
    kinds = {kind.get("type") for kind in field.get("anyOf", [field])} - {"null"}
    types = {"boolean": pa.bool_(), "integer": pa.int64()}
    # A field that may be a number or a name, such as memory_cap, is text.
    return fixed.get(column) or (
        types.get(kinds.pop(), pa.string()) if len(kinds) == 1 else pa.string()
    )
