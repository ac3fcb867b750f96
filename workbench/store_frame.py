"""Many records of a store as wide tables of pandas; values stay exact."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd

from workbench.collector import without_collector
from workbench.record import METRICS
from workbench.spec import Cell
from workbench.store_rows import RecordId, cell_fields, exact, load

Query = Callable[[str, tuple[Any, ...]], list[tuple[Any, ...]]]
"""SQL and its values to rows."""
Columns = dict[str, pd.Series]

_WORDS = ("key", "source", "device", "status", "started_at")
_NAMES = (*_WORDS, "duration_s", "num_visual", "cell", "flags", "error")
MOST_METRICS = 1_000
"""Different names in a store: a table of them is as large as their number times the records."""
_RUN_WORDS = ("run", "sweep")
_FIELDS = {name: field.alias or name for name, field in Cell.model_fields.items()}
"""The fields of a cell and their public names."""


def records(
    query: Query, source: str, metrics: Iterable[str] | None, details: Sequence[str]
) -> pd.DataFrame:
    """``Store.frame``, by the records' ids. ``source``: FROM and what follows it."""
    # Of text in numpy's arrays the analysis takes rows and single values in half the time.
    with without_collector(), pd.option_context("mode.string_storage", "python"):
        names = ("run_id", *_NAMES)
        values, found = _figures(query, source, (), names, metrics, details)
        runs = {row[0]: row[1:] for row in query("SELECT id, name, sweep FROM runs", ())}
        facts = {word: pd.Series([runs[i][at] for i in values["run_id"]], dtype="str")
                 for at, word in enumerate(_RUN_WORDS)}  # fmt: skip
        facts |= {name: pd.Series(values[name], dtype="str") for name in _WORDS}
        facts["duration_s"] = pd.Series(values["duration_s"], dtype="float64")
        facts |= _cells(values["num_visual"], values["cell"])
        texts, words = _once(values["flags"], lambda text: tuple(map(str, load(text))))
        facts["flags"] = pd.Series(words, dtype=object).take(texts).reset_index(drop=True)
        facts["error"] = pd.Series(values["error"], dtype=object)
        return _indexed(facts | found, values)


def figures(
    query: Query, ids: Iterable[int], metrics: Iterable[str] | None, details: Sequence[str]
) -> pd.DataFrame:
    """``Store.figures``, by id."""
    with without_collector():
        values, found = _figures(query, f"FROM records {_SOME}", _some(ids), (), metrics, details)
        return _indexed(found, values)


def samples(query: Query, ids: Iterable[int], metric: str) -> dict[RecordId, list[float]]:
    """``Store.samples``."""
    tables = "FROM records JOIN runs ON runs.id = records.run_id"
    names = "runs.name, key, source, records.device, samples"
    rows = query(f"SELECT {names} {tables} {_SOME}", _some(ids))
    held = load(f"[{','.join(row[-1] for row in rows)}]")
    return {(run, key, source, device): each[metric]
            for (run, key, source, device, _), each in zip(rows, held, strict=True)
            if each.get(metric)}  # fmt: skip


_SOME = "WHERE records.id IN (SELECT value FROM json_each(?)) ORDER BY records.id"


def _some(ids: Iterable[int]) -> tuple[str]:
    # SQLite takes at most so many values of a statement one by one, but a list of any length.
    return (json.dumps([int(i) for i in ids]),)


def _figures(
    query: Query,
    source: str,
    bound: tuple[Any, ...],
    more: Sequence[str],
    metrics: Iterable[str] | None,
    details: Sequence[str],
) -> tuple[Mapping[str, Sequence[Any]], Columns]:
    """Columns of the table ``records``, ``more`` among them, and the columns of numbers."""
    wanted = None if metrics is None else set(metrics)
    told = () if wanted == set() else ("metrics",)
    names = ("id", "num_samples", *more, *told)
    values = _columns(query, source, bound, names, details)
    found = _metrics(values["metrics"], wanted) if told else {}
    counted = pd.Series(values["num_samples"], dtype="float64")
    known = found.get("num_samples")
    found["num_samples"] = counted if known is None else known.fillna(counted)
    return values, found | _numbers(values, details)


def _columns(
    query: Query, source: str, bound: tuple[Any, ...], names: Sequence[str], details: Sequence[str]
) -> Mapping[str, Sequence[Any]]:
    # SQLite takes the numbers out: decoding all details would take longer than all the rest.
    picked = [f"json_extract(records.details, '$.{name}')" for name in details]
    every = ", ".join([*(f"records.{name}" for name in names), *picked])
    rows = query(f"SELECT {every} {source}", bound)
    columns = zip(*rows, strict=True) if rows else ((),) * (len(names) + len(details))
    return dict(zip((*names, *details), columns, strict=True))


def _indexed(columns: Columns, values: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    return pd.DataFrame(columns).set_axis(pd.Index(values["id"], dtype="int64"), axis="index")


def _numbers(values: Mapping[str, Sequence[Any]], names: Sequence[str]) -> Columns:
    """Columns in which whatever is no number is missing."""
    taken = {name: pd.Series(values[name], dtype=object) for name in names}
    return {name: pd.to_numeric(column, errors="coerce").astype("float64")
            for name, column in taken.items()}  # fmt: skip


def _once(texts: Sequence[str], parse: Any) -> tuple[Any, list[Any]]:
    """Parse each distinct text once: (index into the results for every text, the results)."""
    codes, distinct = pd.factorize(pd.Series(texts, dtype="str"))
    return codes, [parse(text) for text in distinct]


def _metrics(values: Sequence[str], wanted: set[str] | None) -> Columns:
    # One long document is parsed in a fraction of the time that its parts would take one by one.
    text = f"[{','.join(values)}]"
    documents = load(text)
    if len(documents) != len(values):
        raise ValueError("a row holds more than one document")
    held: set[str] = set()
    for document in documents:
        held.update(document)
        if len(held) > MOST_METRICS:
            raise ValueError(f"more than {MOST_METRICS:,} different metrics")
    names = [name for name in (*METRICS, *sorted(held - set(METRICS)))
             if wanted is None or name in wanted]  # fmt: skip
    if ':"' in text:
        return {name: _exact([exact(doc.get(name)) for doc in documents]) for name in names}
    # Most of the metrics that there are, no record of a store has.
    told = [name for name in names if name in held]
    table = _floats(documents, told)
    if np.isinf(table).any():
        raise ValueError("a metric is not finite")
    place = {name: i for i, name in enumerate(told)}
    missing = np.full(len(documents), np.nan)
    return {name: pd.Series(table[:, place[name]] if name in place else missing)
            for name in names}  # fmt: skip


def _floats(documents: Sequence[dict[str, Any]], names: Sequence[str]) -> np.ndarray:
    """(documents, names): float64, NaN for null and for what is not there."""
    if not names:
        return np.empty((len(documents), 0))
    chosen = itemgetter(*names)
    try:
        rows = list(map(chosen, documents))
    except KeyError:
        blank = dict.fromkeys(names)
        rows = [chosen(blank | doc) for doc in documents]
    return np.array(rows, dtype=np.float64).reshape(len(documents), len(names))


def _exact(values: list[Any]) -> pd.Series:
    beyond = any(isinstance(value, int) and abs(value) >= 2**63 for value in values)
    return pd.Series(values, dtype=object if beyond else "float64")


def _cells(num_visual: Sequence[int], cells: Sequence[str]) -> Columns:
    # |V| = 1 stands in: whatever |V| is, the other fields of these cells are the same.
    index, distinct = _once(cells, lambda text: cell_fields(1, text))
    columns = {}
    for name, public in _FIELDS.items():
        field = Cell.model_fields[name]
        # Optional fields stay Python objects: None must not turn into NaN, nor 2 into 2.0.
        optional = not field.is_required() and field.default is None
        column = pd.Series([doc[public] for doc in distinct], dtype=object if optional else None)
        columns[public] = column.take(index).reset_index(drop=True)
    columns["num_visual"] = pd.Series(num_visual, dtype="int64")
    return columns
