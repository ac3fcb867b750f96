"""One store out of several: each record once, and of a damaged file whatever can still be read."""

import os.path
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from workbench.inputs.files import shown
from workbench.store import RunInfo, Store
from workbench.store.notes import Note, NoteOf
from workbench.store.rows import decode, load
from workbench.store.salvage import RECORDS, RUNS, Salvage
from workbench.store.schema import DamagedStore, StoreError
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.record import Environment, Record


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
    records: list[tuple[str, Record]]
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
    for path in map(Path, inputs):
        if path == target or (
            os.path.exists(path) and os.path.exists(target) and os.path.samefile(path, target)
        ):
            raise RequestError(
                f"merge: {shown(path)} is an input; -o names another file, as inputs are only read"
            )
    # Everything is read before anything is written: a bad request leaves no file behind.
    parts = [_read(Path(path)) for path in inputs]
    runs = sorted((run for part in parts for run in part.runs), key=lambda run: run.started_at)
    units = {name: unit for part in parts for name, unit in part.units.items()}
    with Store.open(target, "w") as store:
        added = 0
        for run in runs:
            store.adopt_run(run, units)
        for part in parts:
            for run_id, records in _by_run(part.records):
                added += store.add_many(run_id, records)
        held = store.notes()
        for of, note in ((of, note) for part in parts for of, note in part.notes.items()):
            if held.setdefault(of, note) is note:
                store.write_note(of, note.text, note.tags)
        found = store.runs()
    notes = [part.note for part in parts if part.note]
    return Merged(target, len(found), sum(run.num_records for run in found), added, notes)


def _by_run(items: Iterable[tuple[str, Record]]) -> list[tuple[str, list[Record]]]:
    found: dict[str, list[Record]] = {}
    for run, record in items:
        found.setdefault(run, []).append(record)
    return list(found.items())


def _read(path: Path) -> _Part:
    try:
        with Store.open(path) as store:
            if not store.check(rows=False):
                return _Part(store.runs(), list(store.items()), store.units(), store.notes())
    except DamagedStore:
        pass
    return _salvaged(path)


def _salvaged(path: Path) -> _Part:
    """The rows of a damaged store."""
    try:
        with closing(Salvage(path)) as file:
            runs, found, number, lost = _rows_of(file)
    except OSError as error:
        raise StoreError(f"store {str(path)!r}: cannot be read: {error.strerror}") from error
    if not found:
        raise RequestError(f"store {str(path)!r}: no store, or damaged: no readable record in it")
    note = f"{path}: damaged; {number} records saved, the file itself is left as it is"
    note += f"; {lost} rows were there but made no sense" if lost else ""
    return _Part(list(runs.values()), found, {}, {}, note)


def _rows_of(file: Salvage) -> tuple[dict[int, RunInfo], list[tuple[str, Record]], int, int]:
    """Runs by their number, (run, record), of how many cells, and rows that made no sense."""
    runs: dict[int, RunInfo] = {}
    for rowid, (_, name, sweep, started_at, _, spec, environment) in file.rows(RUNS):
        try:
            facts = Environment.model_validate_json(environment)
            runs[rowid] = RunInfo(name, sweep, started_at, load(spec), facts, 0)
        except ValueError:
            continue
    facts_of = {number: run.environment.model_dump_json() for number, run in runs.items()}
    found: list[tuple[str, Record]] = []
    identities = set()
    lost, digest = 0, ""
    for _, (_, run_id, *values) in file.rows(RECORDS):
        try:
            record = decode(values, facts_of.get(run_id, "{}"))
        except ValueError:
            lost += 1
            continue
        if run_id not in runs:
            # What stands for a run whose own row is lost is named by the file's content.
            digest = digest or file.digest()
            name = f"salvaged-{digest}-{run_id}"
            runs[run_id] = RunInfo(name, "salvaged", "", {}, Environment(), 0)
        found.append((runs[run_id].id, record))
        identities.add((runs[run_id].id, *values[:3]))  # Its key, source and device.
    return runs, found, len(identities), lost
