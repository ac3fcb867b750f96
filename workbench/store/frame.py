"""Many records of a store as wide tables of pandas; values stay exact."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd

from workbench.collector import without_collector
from workbench.store.rows import MOST, RecordId, cell_fields, exact, load
from workbench.vocabulary.cell import PUBLIC_NAMES, Cell
from workbench.vocabulary.fields import MAX_TOKENS
from workbench.vocabulary.metrics import METRICS

Query = Callable[[str, tuple[Any, ...]], list[tuple[Any, ...]]]
"""SQL and its values to rows."""
Columns = dict[str, pd.Series]

_WORDS = ("key", "source", "device", "status", "started_at")
_NAMES = (*_WORDS, "duration_s", "num_visual", "cell", "flags", "error")
MOST_METRICS = 1_000
"""Different names in a store."""
MOST_BYTES = 256 * 2**20
"""Bytes of the metrics of a table; pandas needs some of it twice for a moment."""
OBJECT_BYTES = 64
"""Bytes of a Python integer and the place that holds it."""
MOST_KINDS = 50_000
"""Cells that differ in more than |V|; each is validated by itself."""
AT_ONCE = 10_000
"""Documents that are parsed together."""
_RUN_WORDS = ("run", "sweep")


def records(
    query: Query, source: str, metrics: Iterable[str] | None, details: Sequence[str]
) -> pd.DataFrame:
    """``Store.frame``, by the records' ids. ``source``: FROM and what follows it."""
    # Of text in numpy's arrays the analysis takes rows and single values in half the time.
    with without_collector(), pd.option_context("mode.string_storage", "python"):
        names = ("run_id", *_NAMES)
        values, columns = _figures(query, source, (), names, metrics, details)
        runs = {row[0]: row[1:] for row in query("SELECT id, name, sweep FROM runs", ())}
        facts = {
            word: pd.Series([runs[i][at] for i in values["run_id"]], dtype="str")
            for at, word in enumerate(_RUN_WORDS)
        }
        facts |= {name: pd.Series(values[name], dtype="str") for name in _WORDS}
        facts["duration_s"] = pd.Series(values["duration_s"], dtype="float64")
        facts |= _cells(values["num_visual"], values["cell"])
        texts, words = _once(values["flags"], lambda text: tuple(map(str, load(text))))
        facts["flags"] = pd.Series(words, dtype=object).take(texts).reset_index(drop=True)
        facts["error"] = pd.Series(values["error"], dtype=object)
        return _indexed(facts | columns, values)


def figures(
    query: Query, ids: Iterable[int], metrics: Iterable[str] | None, details: Sequence[str]
) -> pd.DataFrame:
    """``Store.figures``, by id."""
    with without_collector():
        values, columns = _figures(
            query, f"FROM records {_SOME}", _some(ids), (), metrics, details
        )
        return _indexed(columns, values)


def samples(query: Query, ids: Iterable[int], metric: str) -> dict[RecordId, list[float]]:
    """``Store.samples``."""
    tables = "FROM records JOIN runs ON runs.id = records.run_id"
    names = "runs.name, key, source, records.device, samples"
    rows = query(f"SELECT {names} {tables} {_SOME}", _some(ids))
    lists = load(f"[{','.join(row[-1] for row in rows)}]")
    return {
        (run, key, source, device): each[metric]
        for (run, key, source, device, _), each in zip(rows, lists, strict=True)
        if each.get(metric)
    }


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
    names_of_metrics = None if metrics is None else set(metrics)
    column = () if names_of_metrics == set() else ("metrics",)
    names = ("id", "num_samples", *more, *column)
    values = _columns(query, source, bound, names, details)
    columns = _metrics(values["metrics"], names_of_metrics) if column else {}
    samples = pd.Series(values["num_samples"], dtype="float64")
    stated = columns.get("num_samples")
    columns["num_samples"] = samples if stated is None else stated.fillna(samples)
    return values, columns | _numbers(values, details)


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
    columns = {name: pd.Series(values[name], dtype=object) for name in names}
    return {
        name: pd.to_numeric(column, errors="coerce").astype("float64")
        for name, column in columns.items()
    }


def _once(texts: Sequence[str], parse: Any) -> tuple[Any, list[Any]]:
    """Parse each distinct text once: (index into the results for every text, the results)."""
    codes, distinct = pd.factorize(pd.Series(texts, dtype="str"))
    return codes, [parse(text) for text in distinct]


def _metrics(texts: Sequence[str], wanted: set[str] | None) -> Columns:
    """A column for each metric that is registered or held; ValueError for what makes no sense."""
    numbers: dict[str, np.ndarray] = {}
    beyond: set[str] = set()
    for start, plain, documents in _documents(texts):
        present = set().union(*documents)
        names = list(present if wanted is None else present & wanted)
        for name in names:
            if name not in numbers:
                _check_room(len(numbers) + 1, len(beyond), len(texts))
                numbers[name] = np.full(len(texts), np.nan)
        if plain:
            table = _floats(documents, names)
        else:
            rows = [[exact(document.get(name)) for name in names] for document in documents]
            for name, column in zip(names, zip(*rows, strict=True), strict=True):
                if any(isinstance(value, int) and abs(value) >= 2**63 for value in column):
                    beyond.add(name)
                    _check_room(len(numbers), len(beyond), len(texts))
            table = np.array(rows, dtype=np.float64).reshape(len(rows), len(names))
        if (np.abs(table) > MOST).any():
            raise ValueError(f"a metric beyond {MOST:g}")
        for name, values in zip(names, table.T, strict=True):
            numbers[name][start : start + len(documents)] = values
    columns: dict[str, Any] = {**numbers, **_whole_numbers(texts, beyond)}
    # Most of the metrics that there are, no record of a store has.
    missing = np.full(len(texts), np.nan)
    return {
        name: pd.Series(columns.get(name, missing), dtype=object if name in beyond else "float64")
        for name in (*METRICS, *sorted(columns.keys() - set(METRICS)))
        if wanted is None or name in wanted
    }


def _documents(texts: Sequence[str]) -> Iterator[tuple[int, bool, list[dict[str, Any]]]]:
    """The documents in pieces of AT_ONCE: the number of the first, whether all values are JSON's
    own numbers, and the documents.
    """
    # One long document is parsed in a fraction of the time that its parts would take one by one.
    for start in range(0, len(texts), AT_ONCE):
        piece = texts[start : start + AT_ONCE]
        text = f"[{','.join(piece)}]"
        documents = load(text)
        if len(documents) != len(piece):
            raise ValueError("a row holds more than one document")
        yield start, ':"' not in text, documents


def _floats(documents: Sequence[dict[str, Any]], names: Sequence[str]) -> np.ndarray:
    """(documents, names): float64, NaN for null and for what is not there."""
    if not names:
        return np.empty((len(documents), 0))
    pick = itemgetter(*names)
    try:
        rows = list(map(pick, documents))
    except KeyError:
        blank = dict.fromkeys(names)
        rows = [pick(blank | document) for document in documents]
    return np.array(rows, dtype=np.float64).reshape(len(documents), len(names))


def _check_room(num_names: int, num_beyond: int, num_rows: int) -> None:
    """A table is as large as the names times the rows, however small the file is."""
    if num_names > MOST_METRICS:
        raise ValueError(f"more than {MOST_METRICS:,} different metrics")
    if num_rows * (8 * num_names + OBJECT_BYTES * num_beyond) > MOST_BYTES:
        raise ValueError(
            f"{num_names:,} metrics of {num_rows:,} records: a table of them would be larger than "
            f"{MOST_BYTES:,} bytes"
        )


def _whole_numbers(texts: Sequence[str], names: set[str]) -> dict[str, list[Any]]:
    """The columns with integers beyond 63 bits, every number as it was recorded."""
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for _, _, documents in _documents(texts) if names else ():
        for name, values in columns.items():
            values += [exact(document.get(name)) for document in documents]
    return columns


def _cells(num_visual: Sequence[int], cells: Sequence[str]) -> Columns:
    if num_visual and not 0 <= min(num_visual) <= max(num_visual) <= MAX_TOKENS:
        raise ValueError(f"num_visual beyond {MAX_TOKENS:,}")
    codes, distinct = pd.factorize(pd.Series(cells, dtype="str"))
    if len(distinct) > MOST_KINDS:
        raise ValueError(f"more than {MOST_KINDS:,} kinds of cells")
    # |V| = 1 stands in: whatever |V| is, the other fields of these cells are the same.
    values: dict[str, list[Any]] = {public: [] for public in PUBLIC_NAMES.values()}
    same: dict[str, str] = {}
    for text in distinct:
        for public, value in cell_fields(1, text).items():
            # Many kinds share a few words, each of which is kept once.
            words = isinstance(value, str)
            values[public].append(same.setdefault(value, value) if words else value)
    columns = {}
    for name, public in PUBLIC_NAMES.items():
        field = Cell.model_fields[name]
        # Optional fields stay Python objects: None must not turn into NaN, nor 2 into 2.0.
        optional = not field.is_required() and field.default is None
        column = pd.Series(values[public], dtype=object if optional else None)
        columns[public] = column.take(codes).reset_index(drop=True)
    columns["num_visual"] = pd.Series(num_visual, dtype="int64")
    return columns
