"""One store out of several: each record once, and of a damaged file whatever can still be read."""

import os.path
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from workbench.inputs.files import shown
from workbench.store import RunInfo, Store
from workbench.store.copies import Row, sound_row
from workbench.store.notes import Note, NoteOf
from workbench.store.rows import load, unit_of
from workbench.store.salvage import RECORDS, Salvage
from workbench.store.schema import DamagedStore, StoreError
from workbench.vocabulary.errors import Faults, RequestError
from workbench.vocabulary.record import Environment

T = TypeVar("T", str, int)
"""A run by its name, or by its number in a damaged file."""


class Merged(NamedTuple):
    """What a merge did."""

    out: Path
    num_runs: int
    num_records: int
    """Records in the merged store."""
    num_added: int
    """Records that this merge brought into it."""
    notes: list[str]
    """One line for each damaged input: what was saved, and that the file was left as it is."""


class _Part(NamedTuple):
    runs: list[RunInfo]
    rows: list[tuple[str, Row]]
    """Rows with the name of their run."""
    metrics: set[str]
    units: dict[str, str]
    notes: dict[NoteOf, Note]
    note: str | None = None


def merge(inputs: Sequence[str | Path], out: str | Path) -> Merged:
    """Unite ``inputs`` in ``out``, which is created, or added to where it is a store.

    A (run, key, source, device) is kept once: a record that is done before one that is not, then
    the one that was there first; of two that are not done the later. Of two notes on the same the
    first is kept. Inputs are only read.
    Raises RequestError where an input is no store at all or is ``out`` itself, or ``out`` is a
    file of another kind, and StoreError where ``out`` cannot be written.
    """
    target = Path(out)
    if not inputs:
        raise RequestError("merge: name at least one store")
    faults = Faults()
    for path in map(Path, inputs):
        if path == target or (
            os.path.exists(path) and os.path.exists(target) and os.path.samefile(path, target)
        ):
            faults.add(
                f"merge: {shown(path)} is an input; -o names another file, as inputs are only read"
            )
    # Everything is read before anything is written: a bad request leaves no file behind.
    parts = []
    for path in map(Path, inputs):
        with faults:
            parts.append(_read(path))
    faults.raise_all()
    runs = sorted((run for part in parts for run in part.runs), key=lambda run: run.started_at)
    units = {name: unit_of(name) for part in parts for name in part.metrics}
    units |= {name: unit for part in parts for name, unit in part.units.items()}
    with Store.open(target, "w") as store:
        num_added = 0
        for run in runs:
            store.adopt_run(run, units)
        for part in parts:
            for run_id, rows in _by_run(part.rows):
                num_added += store.add_rows(run_id, rows)
        own_notes = store.notes()
        for of, note in ((of, note) for part in parts for of, note in part.notes.items()):
            if own_notes.setdefault(of, note) is note:
                store.write_note(of, note.text, note.tags)
        source_runs = store.runs()
    notes = [part.note for part in parts if part.note]
    return Merged(
        target, len(source_runs), sum(run.num_records for run in source_runs), num_added, notes
    )


def _by_run(items: Iterable[tuple[str, Row]]) -> list[tuple[str, list[Row]]]:
    rows_of: dict[str, list[Row]] = {}
    for run, row in items:
        rows_of.setdefault(run, []).append(row)
    return list(rows_of.items())


def _read(path: Path) -> _Part:
    try:
        with Store.open(path) as store:
            if not store.check(rows=False):
                # A note or a run that makes no sense is noticed before the rows are read.
                runs, units, notes = store.runs(), store.units(), store.notes()
                sound = _sound(store.rows())
                note = _note(path, sound.rows, sound.num_lost) if sound.num_lost else None
                return _Part(runs, sound.rows, sound.metrics, units, notes, note)
    except DamagedStore:
        pass
    return _salvaged(path)


class _Sound(NamedTuple, Generic[T]):
    """The rows of many that make sense, each of a run."""

    rows: list[tuple[T, Row]]
    metrics: set[str]
    """The names of all their metrics."""
    num_lost: int
    """Rows that make no sense."""


def _sound(rows: Iterable[tuple[T, Sequence[Any], str]]) -> _Sound[T]:
    """The rows that make sense, of (run, columns, environment of the run)."""
    sound: list[tuple[T, Row]] = []
    metrics: set[str] = set()
    num_lost = 0
    for run, columns, environment in rows:
        try:
            row, numbers = sound_row(columns, environment)
        except ValueError:
            num_lost += 1
            continue
        sound.append((run, row))
        metrics.update(numbers)
    return _Sound(sound, metrics, num_lost)


def _note(path: Path, rows: list[tuple[str, Row]], num_lost: int) -> str:
    """What was saved of a damaged file; raises RequestError where it is nothing."""
    if not rows:
        raise RequestError(f"store {str(path)!r}: no store, or damaged: no readable record in it")
    number = len({(run, *row[:3]) for run, row in rows})  # Each key, source and device once.
    note = f"{path}: damaged; {number} records saved, the file itself is left as it is"
    return note + (f"; {num_lost} rows were there but made no sense" if num_lost else "")


def _salvaged(path: Path) -> _Part:
    """The rows of a store whose pages are damaged."""
    try:
        with closing(Salvage(path)) as file:
            return _pieces(path, file)
    except OSError as error:
        raise StoreError(f"store {str(path)!r}: cannot be read: {error.strerror}") from error


def _pieces(path: Path, file: Salvage) -> _Part:
    runs: dict[int, RunInfo] = {}
    rows: deque[tuple[Any, ...]] = deque()
    for columns, rowid, values in file.rows():
        if columns is RECORDS:
            rows.append(values)
            continue
        _, name, sweep, started_at, _, spec, environment = values
        try:
            facts = Environment.model_validate_json(environment)
            runs[rowid] = RunInfo(name, sweep, started_at, load(spec), facts, 0)
        except ValueError:
            continue
    facts_of = {number: run.environment.model_dump_json() for number, run in runs.items()}
    # Each is let go when it is taken: there may be many.
    batch = (rows.popleft() for _ in range(len(rows)))
    sound = _sound((number, row, facts_of.get(number, "{}")) for _, number, *row in batch)
    missing = {number for number, _ in sound.rows} - runs.keys()
    if missing:
        # What stands for a run whose own row is lost is named by the file's content.
        digest = file.digest()
        for number in dict.fromkeys(number for number, _ in sound.rows):
            if number in missing:
                name = f"salvaged-{digest}-{number}"
                runs[number] = RunInfo(name, "salvaged", "", {}, Environment(), 0)
    rows_by_run = [(runs[number].id, row) for number, row in sound.rows]
    note = _note(path, rows_by_run, sound.num_lost)
    return _Part(list(runs.values()), rows_by_run, sound.metrics, {}, {}, note)
