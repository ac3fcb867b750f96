"""What is asked of an open store: runs, records, frames, notes, whether the file is sound.

Nothing here imports torch, and pandas only where a table is asked for. ``database.py`` writes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, get_args

from workbench.store import claims as claims
from workbench.store import notes as notes
from workbench.store.copies import Row
from workbench.store.guard import Allowance, Opened
from workbench.store.notes import Note, NoteOf
from workbench.store.portion import Portion, portion
from workbench.store.rows import (
    COLUMNS,
    MOST,
    CellId,
    RecordId,
    decode,
    load,
)
from workbench.store.schema import (
    Mode,
    changed,
    connect,
    damaged_store_error,
    decode_errors_as_damage,
    translate_sqlite_errors,
)
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError, unknown_name
from workbench.vocabulary.record import Ceiling, Environment, Record, Status

if TYPE_CHECKING:
    import pandas as pd

CEILINGS = ("ceiling_flops_s", "ceiling_bytes_s")
DEFAULT_DTYPE = Cell.model_fields["dtype"].default

_RUNS = """
    SELECT name, sweep, started_at, spec, environment,
        (SELECT count(*) FROM records WHERE run_id = runs.id)
    FROM runs ORDER BY id
"""


class RunInfo(NamedTuple):
    """One run: a sweep in one environment, in the order that the runs were begun."""

    id: str
    sweep: str
    started_at: str
    """ISO 8601 in UTC."""
    spec: dict[str, Any]
    environment: Environment
    num_records: int


def version_token(path: str | Path) -> str:
    """Changes whenever the store does; costs one look at the folder, for caches.

    Raises RequestError where there is no such file. The file is not opened: closing it would drop
    the locks that this process may hold on it.
    """
    try:
        facts = Path(path).stat()
    except (OSError, ValueError) as error:
        raise RequestError(f"store {str(path)!r}: {error}") from None
    return f"{facts.st_ino}-{facts.st_size}-{facts.st_mtime_ns}"


class Reading:
    """An open store, as far as it is read. One object serves one thread."""

    def __init__(self, path: str | Path, mode: Mode = "r") -> None:
        if mode not in get_args(Mode):
            raise RequestError(f"mode {mode!r:.60}: r, to read, or w, to write")
        self.path, self.mode = Path(path), mode
        self._connection = connect(self.path, mode)
        self._opened = Opened.of(self.path)
        self._allowance = Allowance(self._connection, self.path)

    @classmethod
    def open(cls, path: str | Path, mode: Mode = "r") -> Self:
        """Open an existing store for reading, or with ``"w"`` for writing, creating it if need be.

        Raises RequestError, one line, for a path that is missing, a folder, not a store, of a
        newer version or damaged; StoreError where it cannot be written.
        """
        return cls(path, mode)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._connection.close()

    def claimed(self, run: str) -> list[CellId]:
        """The cells of the run that somebody holds, or held when it ended."""
        return self._rows(
            "SELECT key, source, device FROM claims WHERE run_id = ?", (self._run(run)[0],)
        )

    def runs(self) -> list[RunInfo]:
        """Every run, oldest first."""
        runs = []
        for name, sweep, started_at, spec, environment, count in self._rows(_RUNS):
            with decode_errors_as_damage(self.path):
                facts = Environment.model_validate_json(environment)
                runs.append(RunInfo(name, sweep, started_at, load(spec), facts, count))
        return runs

    def identities(self, run: str) -> dict[CellId, Status]:
        """How each cell of the run ended."""
        run_id, _ = self._run(run)
        rows = self._rows(
            "SELECT key, source, device, status FROM records WHERE run_id = ?", (run_id,)
        )
        with decode_errors_as_damage(self.path):
            return {(key, source, device): Status(status) for key, source, device, status in rows}

    def records(self, run: str | None = None) -> list[Record]:
        """The records of one run or of all, in the order they were first added."""
        return [record for _, record in self.items(run)]

    def items(
        self, run: str | None = None, known: Mapping[RecordId, Record] | None = None
    ) -> Iterator[tuple[str, Record]]:
        """(run, record) of one run or of all, in the order they were first added.

        ``known`` are records that were read before: they are not decoded again.
        """
        for name, row, environment in self.rows(run):
            key, source, device = row[:3]
            before = known.get((name, key, source, device)) if known else None
            try:
                yield name, before or decode(row, environment)
            except ValueError as error:
                raise damaged_store_error(self.path, str(error)) from None

    def rows(self, run: str | None = None) -> Iterator[tuple[str, Row, str]]:
        """(run, COLUMNS as they are written, the run's environment) of what ``items`` decodes."""
        names = ", ".join(f"records.{name}" for name in COLUMNS)
        runs = {row[0]: row[1:] for row in self._rows("SELECT id, name, environment FROM runs")}
        where = "" if run is None else f"+records.run_id = {self._run(run)[0]}"
        for run_id, *row in self._rows(f"SELECT run_id, {names} {self._from(where)}"):
            name, environment = runs[run_id]
            yield name, tuple(row), environment

    def some(self, identities: Iterable[RecordId]) -> dict[RecordId, Record]:
        """The records of those of ``identities`` that the store holds, each found by its index."""
        names = ", ".join(f"records.{name}" for name in COLUMNS)
        query = (
            f"SELECT runs.environment, {names} FROM records JOIN runs ON runs.id = records.run_id"
            " WHERE runs.name = ? AND key = ? AND source = ? AND records.device = ?"
        )
        records = {}
        for identity in identities:
            for environment, *row in self._rows(query, identity):
                with decode_errors_as_damage(self.path):
                    records[identity] = decode(row, environment)
        return records

    def with_details(self, names: Sequence[str]) -> set[RecordId]:
        """The records whose details have something under any of ``names``."""
        # SQLite looks: decoding all details would take longer than all the rest.
        kinds = ", ".join(f"json_type(records.details, '$.{name}')" for name in names)
        query = f"""
            SELECT runs.name, key, source, records.device
            FROM records JOIN runs ON runs.id = records.run_id
            WHERE coalesce({kinds}, 'null') != 'null'
        """
        return set(self._rows(query))

    def frame(
        self,
        run: str | None = None,
        metrics: Iterable[str] | None = None,
        details: Sequence[str] = (),
    ) -> "pd.DataFrame":
        """One row a record: run, sweep, key, source, device, status, started_at, duration_s, the
        cell's fields under their public names, every metric (or those of ``metrics``),
        num_samples, flags (a tuple of words), error; then a column for each name of ``details``
        with the number that the record's details hold under it. The index is the record's number
        in the file.

        Metrics are float64, NaN where not available; a metric that holds an integer beyond 63 bits
        is a column of exact Python numbers. Of a store that would take more than 1 GiB it has the
        newest runs; ``left_out`` says so.
        """
        from workbench.store import frame

        source = self._from(self._portion(run).where)
        with decode_errors_as_damage(self.path):
            return frame.records(self._rows, source, metrics, details)

    def left_out(self, run: str | None = None) -> str | None:
        """What ``frame`` leaves out of a very large store, as a sentence; None for nothing."""
        return self._portion(run).left_out

    def figures(
        self,
        ids: Iterable[int],
        metrics: Iterable[str] | None = None,
        details: Sequence[str] = (),
    ) -> "pd.DataFrame":
        """The metrics of some records, num_samples and ``details``, as ``frame`` has them.

        ``ids`` are labels of ``frame``'s index, and so is this one's index, in its order.
        """
        from workbench.store import frame

        with decode_errors_as_damage(self.path):
            return frame.figures(self._rows, ids, metrics, details)

    def samples(self, ids: Iterable[int], metric: str = "time_s") -> dict[RecordId, list[float]]:
        """The raw samples of a metric, where a record has any; ``ids`` as in ``figures``."""
        from workbench.store import frame

        with decode_errors_as_damage(self.path):
            return frame.samples(self._rows, ids, metric)

    def notes(self) -> dict[NoteOf, Note]:
        """Every note, by the run or the record that it is on."""
        with decode_errors_as_damage(self.path):
            return notes.decode(self._rows(notes.QUERY))

    def ceilings(self, fingerprint: str, device: str) -> dict[str, Ceiling]:
        """What ``device`` was found to reach in that environment, by data type: the first found.

        Any record that was measured beside ceilings has them.
        """
        names = [f"json_extract(metrics, '$.{name}')" for name in CEILINGS]
        query = f"""
            SELECT json_extract(cell, '$.dtype'), {", ".join(names)}
            FROM records JOIN runs ON runs.id = records.run_id
            WHERE fingerprint = ? AND device = ? AND source = 'measured' AND {names[0]} > 0
            ORDER BY records.id
        """
        ceilings: dict[str, Ceiling] = {}
        for dtype, *rates in self._rows(query, (fingerprint, device)):
            if all(isinstance(rate, float) and 0 < rate <= MOST for rate in rates):
                ceilings.setdefault(dtype or DEFAULT_DTYPE, Ceiling(*rates))
        return ceilings

    def units(self) -> dict[str, str]:
        """The unit of every metric that the store ever held, empty for one without."""
        return dict(self._rows("SELECT name, unit FROM units ORDER BY name"))

    def check(self, rows: bool = True) -> list[str]:
        """What is wrong with the file, in lines; empty for a sound store. Reads all of it.

        Without ``rows`` only its pages are checked, not what the rows say.
        """
        try:
            lines = [row[0] for row in self._rows("PRAGMA integrity_check(20)") if row[0] != "ok"]
            if rows:
                self.runs()
                for _ in self.items():
                    pass
        except RequestError as error:
            return [str(error)]
        return lines

    def version_token(self) -> str:
        """A word that changes whenever the file does; costs one look at the folder."""
        return version_token(self.path)

    def _from(self, where: str) -> str:
        tables = "FROM records JOIN runs ON runs.id = records.run_id"
        return f"{tables} {where and f'WHERE {where}'} ORDER BY records.id"

    def _portion(self, run: str | None) -> Portion:
        run_id = None if run is None else self._run(run)[0]
        try:
            size = self.path.stat().st_size
        except OSError as error:
            raise changed(self.path, f"it cannot be found ({error.strerror})") from None
        return portion(self._rows, size, run_id)

    def _run(self, name: str) -> tuple[int, Environment]:
        rows = self._rows("SELECT id, environment FROM runs WHERE name = ?", (name,))
        if not rows:
            raise unknown_name("run", name, [run.id for run in self.runs()])
        try:
            return rows[0][0], Environment.model_validate_json(rows[0][1])
        except ValueError as error:
            raise damaged_store_error(self.path, f"run {name}: {error}") from None

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        self._allowance.renew()
        with self._explained():
            return self._connection.execute(query, values).fetchall()

    def _explained(self) -> AbstractContextManager[None]:
        return translate_sqlite_errors(self.path, self.mode, self._opened)
