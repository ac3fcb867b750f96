"""The store: runs and their records in one SQLite file, the single truth of the workbench.

Every row is its own transaction, so that a crash costs the cell in flight and no other. Several
processes may write at once. The schema is described in docs/schema.md. What is read stands
in ``reading.py``. Nothing here imports torch.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any

from workbench.store import claims as claims
from workbench.store import notes as notes
from workbench.store.claims import Owner, this_process
from workbench.store.copies import ENVIRONMENT, Row, with_environment
from workbench.store.notes import Note, NoteOf
from workbench.store.reading import Reading, RunInfo, version_token
from workbench.store.rows import (
    COLUMNS,
    CellId,
    RecordId,
    dump,
    encode,
    environment_of,
    unit_of,
)
from workbench.store.schema import (
    StoreError,
    changed,
    damaged_store_error,
    transaction,
)
from workbench.vocabulary.record import Environment, Record, Status

__all__ = ["RecordId", "RunInfo", "Store", "StoreError", "version_token"]

LEASE_S = 7200.0

_DONE = ", ".join(f"'{status.value}'" for status in Status if status.done)

_PUT = f"""
    INSERT INTO records (run_id, {", ".join(COLUMNS)})
    VALUES ({", ".join("?" * (1 + len(COLUMNS)))})
    ON CONFLICT (run_id, key, source, device) DO UPDATE
    SET {", ".join(f"{name} = excluded.{name}" for name in COLUMNS)}
    WHERE status NOT IN ({_DONE})
"""

_RUN = """
    INTO runs (name, sweep, started_at, fingerprint, spec, environment) VALUES (?, ?, ?, ?, ?, ?)
"""

_UNIT = "INSERT OR IGNORE INTO units VALUES (?, ?)"


class Store(Reading):
    """An open store: ``with Store.open(path, mode) as store``. One object serves one thread."""

    def begin_run(
        self,
        sweep: str,
        spec: dict[str, Any],
        environment: Environment,
        new: bool = False,
        run_id: str | None = None,
    ) -> str:
        """The run to add to: the newest of this sweep in this environment, or a new one.

        ``new`` always starts another. ``run_id`` asks for exactly that run, created where the
        store lacks it: the shards of one run agree on it. A continued run takes over ``spec``.
        """
        newest = (
            "SELECT name FROM runs WHERE sweep = ? AND fingerprint = ? ORDER BY id DESC LIMIT 1"
        )
        now = datetime.now(UTC)
        fingerprint = environment.fingerprint
        with self._transaction():
            execute = self._connection.execute
            if run_id is not None:
                row = execute("SELECT name FROM runs WHERE name = ?", (run_id,)).fetchone()
            else:
                row = None if new else execute(newest, (sweep, fingerprint)).fetchone()
            if row is not None:
                execute("UPDATE runs SET spec = ? WHERE name = ?", (dump(spec), row[0]))
                return str(row[0])
            name = run_id or f"{sweep}-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
            facts = environment.model_dump_json()
            started_at = now.isoformat(timespec="seconds")
            execute(f"INSERT {_RUN}", (name, sweep, started_at, fingerprint, dump(spec), facts))
            return name

    def adopt_run(self, run: RunInfo, units: Mapping[str, str]) -> None:
        """Enter a run of another store under its own name, unless it is here; no records."""
        facts = run.environment
        row = (run.id, run.sweep, run.started_at, facts.fingerprint, dump(run.spec))
        with self._transaction():
            self._connection.execute(f"INSERT OR IGNORE {_RUN}", (*row, facts.model_dump_json()))
            self._connection.executemany(_UNIT, units.items())

    def add(self, run: str, record: Record) -> bool:
        """Keep ``record``; on return it is on the disk. False where a done one was there already.

        A record that is not done is replaced. The claim on the cell, if any, ends.
        """
        return self.add_many(run, (record,)) == 1

    def add_many(self, run: str, records: Iterable[Record]) -> int:
        """``add`` for many records in one transaction, all or none. Returns how many were kept."""
        run_id, environment = self._run(run)
        names: set[str] = set()

        def rows() -> Iterator[Row]:
            for record in records:
                names.update(record.metrics)
                yield encode(record, environment)

        with self._transaction():
            count = self._put(run_id, rows())
            self._connection.executemany(_UNIT, [(name, unit_of(name)) for name in names])
        return count

    def add_rows(self, run: str, rows: Iterable[Row]) -> int:
        """``add_many`` for ``copies.sound_row``s of another store; their units come beforehand."""
        run_id, environment = self._run(run)

        @cache
        def own(facts: str) -> str | None:
            return None if environment_of(facts) == environment else facts

        with self._transaction():
            return self._put(
                run_id, (with_environment(row, own(row[ENVIRONMENT])) for row in rows)
            )

    def _put(self, run_id: int, rows: Iterable[Row]) -> int:
        """Within a transaction: enter the rows, end the claims on them; how many were kept."""
        claimed = self._connection.execute("SELECT count(*) FROM claims").fetchone()[0]
        identities: list[CellId] = []

        def numbered() -> Iterator[Row]:
            for row in rows:
                if claimed:
                    identities.append(row[:3])
                yield (run_id, *row)

        count = self._connection.executemany(_PUT, numbered()).rowcount
        for identity in identities:
            claims.drop(self._connection, (run_id, *identity), None)
        return count

    def claim(
        self, run: str, identity: CellId, lease_s: float = LEASE_S, owner: Owner | None = None
    ) -> bool:
        """Whether the caller may run the cell: neither done nor held by another living process.

        A claim ends with ``add``, ``release``, the end of its process (as far as this machine can
        see it) or after ``lease_s`` seconds. Claiming again renews one's own.
        """
        cell = (self._run(run)[0], *identity)
        where = f"run_id = ? AND key = ? AND source = ? AND device = ? AND status IN ({_DONE})"
        with self._transaction():
            if self._connection.execute(f"SELECT 1 FROM records WHERE {where}", cell).fetchone():
                return False
            try:
                return claims.take(self._connection, cell, lease_s, owner or this_process())
            except ValueError as error:
                raise damaged_store_error(self.path, f"a claim: {error}") from None

    def release(self, run: str, identity: CellId, owner: Owner | None = None) -> None:
        """Give up one's own claim on a cell without a record."""
        cell = (self._run(run)[0], *identity)
        with self._transaction():
            claims.drop(self._connection, cell, owner or this_process())

    def write_note(self, of: NoteOf, text: str, tags: Iterable[str] = ()) -> Note:
        """Note on a run or a record, in the place of an older one; an empty one ends it."""
        note = notes.checked(text, tags)
        run_id, _ = self._run(of[0])
        with self._transaction():
            notes.put(self._connection, run_id, of, note)
        return note

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._allowance.renew()
        # SQLite notices some of it only when pages are gone.
        if (change := self._opened.change(self.path)) is not None:
            raise changed(self.path, change)
        with self._explained(), transaction(self._connection):
            yield
        self._opened = self._opened.grown(self.path)
