"""How a store file is opened: its schema, its version, and what each failure of SQLite means.

A store is one SQLite file with a rollback journal and ``synchronous=FULL``: safe on network file
systems, unlike WAL, and fast enough for one row a cell. Nothing in it is ever unpickled.
"""

import os
import shlex
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from workbench.store.guard import Opened, faults, limit
from workbench.vocabulary.errors import Failure, RequestError

Mode = Literal["r", "w"]

APPLICATION_ID = 0x56546F6B
"""'VTok' in the file's header: what tells a store from any other SQLite file."""

BUSY_TIMEOUT_S = 60.0

MAX_COPY = 2**30
"""Bytes of a store of an older version, which is brought up to date in memory to be read."""
MAX_VERSION = 1_000
"""Above it a version is a damaged byte, not a program of tomorrow."""

STEPS = (
    """
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        sweep TEXT NOT NULL,
        started_at TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        spec TEXT NOT NULL,
        environment TEXT NOT NULL
    );
    CREATE TABLE records (
        id INTEGER PRIMARY KEY,
        run_id INTEGER NOT NULL REFERENCES runs (id),
        key TEXT NOT NULL,
        source TEXT NOT NULL,
        device TEXT NOT NULL,
        status TEXT NOT NULL,
        started_at TEXT NOT NULL,
        duration_s REAL,
        num_samples INTEGER NOT NULL,
        num_visual INTEGER NOT NULL,
        cell TEXT NOT NULL,
        metrics TEXT NOT NULL,
        flags TEXT NOT NULL,
        error TEXT,
        environment TEXT,
        samples TEXT NOT NULL,
        details TEXT NOT NULL,
        UNIQUE (run_id, key, source, device)
    );
    CREATE TABLE units (name TEXT PRIMARY KEY, unit TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE claims (
        run_id INTEGER NOT NULL REFERENCES runs (id),
        key TEXT NOT NULL,
        source TEXT NOT NULL,
        device TEXT NOT NULL,
        owner TEXT NOT NULL,
        claimed_at REAL NOT NULL,
        expires_at REAL NOT NULL,
        PRIMARY KEY (run_id, key, source, device)
    ) WITHOUT ROWID;
    CREATE VIEW metrics AS
        SELECT records.id AS record_id, each.key AS name, each.value AS value, units.unit AS unit
        FROM records, json_each(records.metrics) AS each
        LEFT JOIN units ON units.name = each.key;
    """,
    """
    CREATE TABLE notes (
        run_id INTEGER NOT NULL REFERENCES runs (id),
        key TEXT NOT NULL,
        source TEXT NOT NULL,
        device TEXT NOT NULL,
        text TEXT NOT NULL,
        tags TEXT NOT NULL,
        written_at TEXT NOT NULL,
        PRIMARY KEY (run_id, key, source, device)
    ) WITHOUT ROWID;
    """,
)
"""Step n takes a store from version n to n + 1; released steps are never edited, only added to.

``records.metrics`` is one JSON object a record: numbers as JSON has them, integers beyond 63 bits
as decimal text, null where a metric is not available. The view spreads it over rows.
"""


class StoreError(Failure):
    """The store could not be written or read though the request was right: disk full, locked."""


class DamagedStore(RequestError):
    """The file is no store, or one whose pages or rows make no sense; rows may be salvaged."""


def connect(path: Path, mode: Mode) -> sqlite3.Connection:
    """Open ``path``; ``"w"`` creates it where missing and brings an older schema up to date.

    Raises RequestError where the path is not a readable store of this version or an older one,
    and StoreError where it cannot be written.
    """
    size = _size(path, mode)
    if mode == "r" and size == 0:
        # A writer that was killed before its first commit leaves an empty file: an empty store.
        return _migrated(sqlite3.connect(":memory:", isolation_level=None))
    with translate_sqlite_errors(path, mode):
        return _reader(path) if mode == "r" else _writer(path)


def _size(path: Path, mode: Mode) -> int | None:
    """The file's size, None where it is to be created. Opens nothing: a FIFO would block."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        if mode == "r":
            raise RequestError(f"store {str(path)!r}: there is no such file") from None
        if not path.parent.is_dir():
            raise RequestError(f"store {str(path)!r}: its folder does not exist") from None
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RequestError(f"store {str(path)!r}: not a usable path: {reason}") from None
    if stat.S_ISDIR(facts.st_mode):
        raise RequestError(f"store {str(path)!r}: is a folder; name a file such as workbench.db")
    if not stat.S_ISREG(facts.st_mode):
        raise RequestError(f"store {str(path)!r}: is not a regular file")
    return facts.st_size


def _open(path: Path, access: Literal["ro", "rw", "rwc"]) -> sqlite3.Connection:
    uri = f"file:{quote(os.fsencode(path.absolute()))}?mode={access}"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    limit(connection)
    # The file may come from a stranger: its schema may call no function with a side effect.
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    # A full /tmp is no reason to fail.
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def _reader(path: Path) -> sqlite3.Connection:
    connection = _open(path, "ro")
    try:
        try:
            version = _version(connection, path)
        except sqlite3.OperationalError as error:
            code = getattr(error, "sqlite_errorcode", 0)  # Python's own errors have none.
            if code & 0xFF != sqlite3.SQLITE_READONLY:
                raise
            # A writer died within a commit: only a connection that may write can undo it.
            with closing(_open(path, "rw")) as writer:
                writer.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if path.stat().st_size == 0:
                # It was its first commit: nothing had been in the file before.
                connection.close()
                return _migrated(sqlite3.connect(":memory:", isolation_level=None))
            version = _version(connection, path)
        if (damage := faults(connection, path)) is not None:
            raise damaged_store_error(path, damage)
        if version == len(STEPS):
            return connection
        if path.stat().st_size > MAX_COPY:
            raise damaged_store_error(
                path,
                f"schema version {version} is older than this program, which reads such a file up "
                f"to {MAX_COPY:,} bytes",
            )
        memory = sqlite3.connect(":memory:", isolation_level=None)
        connection.backup(memory)
        connection.close()
        return _migrated(memory)
    except BaseException:
        connection.close()
        raise


def _writer(path: Path) -> sqlite3.Connection:
    connection = _open(path, "rwc")
    try:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        with transaction(connection):
            blank = not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if not (blank and _header(connection) == (0, 0)):
                _version(connection, path)
            _migrated(connection)
        if (damage := faults(connection, path)) is not None:
            raise damaged_store_error(path, damage)
        return connection
    except BaseException:
        connection.close()
        raise


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, holding the write lock from the start so that what is read stays true."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _header(connection: sqlite3.Connection) -> tuple[int, int]:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    return application, connection.execute("PRAGMA user_version").fetchone()[0]


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """The schema version of a store; RequestError where the file is none, or a newer one."""
    application, version = _header(connection)
    if application != APPLICATION_ID or not 1 <= version <= MAX_VERSION:
        other = "an SQLite file, but not one of the workbench's"
        raise DamagedStore(f"store {str(path)!r}: {other}; {_way_out(path)}")
    if version > len(STEPS):
        raise RequestError(
            f"store {str(path)!r}: schema version {version} is newer than this program, which "
            f"knows up to {len(STEPS)}; update the workbench"
        )
    schema = "SELECT type, name, sql FROM sqlite_schema WHERE sql NOT NULL"
    objects = {name: (kind, sql) for kind, name, sql in connection.execute(schema)}
    own = _objects(version)
    # A stranger's table is never read; an index, a view or a trigger would be calculated.
    strange = any(kind != "table" for name, (kind, _) in objects.items() if name not in own)
    if strange or any(objects.get(name, ("", ""))[1] != sql for name, sql in own.items()):
        raise damaged_store_error(path, "its tables are not those of a store")
    return version


@cache
def _objects(version: int) -> dict[str, str]:
    """The tables and views of a version, by name, as SQLite spells them."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as memory:
        _migrated(memory, version)
        return dict(memory.execute("SELECT name, sql FROM sqlite_schema WHERE sql NOT NULL"))


def _migrated(connection: sqlite3.Connection, to: int | None = None) -> sqlite3.Connection:
    """Bring an empty or older store up to date, within the caller's transaction if any."""
    target = len(STEPS) if to is None else to
    version = _header(connection)[1]
    if version < target:
        for step in STEPS[version:target]:
            for statement in step.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {target}")
    return connection


def damaged_store_error(path: Path, detail: str) -> DamagedStore:
    """The error for a store whose pages or rows do not make sense, with the way out."""
    line = " ".join(detail.split())[:200]
    return DamagedStore(f"store {str(path)!r}: damaged ({line}); {_way_out(path)}")


def _way_out(path: Path) -> str:
    return (
        "save the readable rows of a damaged store into a new one with: "
        f"workbench merge {shlex.quote(str(path))} -o NEW.db"
    )


def changed(path: Path, change: str) -> StoreError:
    """The error for a file that somebody else changed while it was open."""
    return StoreError(
        f"store {str(path)!r}: {change} while it was open; every row acknowledged before is in "
        "the file that it was"
    )


@contextmanager
def decode_errors_as_damage(path: Path) -> Iterator[None]:
    """Within, rows are decoded: one that makes no sense means a damaged store."""
    try:
        yield
    except RequestError:
        raise
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise damaged_store_error(path, str(error)) from None


@contextmanager
def translate_sqlite_errors(
    path: Path, mode: Mode, opened: Opened | None = None
) -> Iterator[None]:
    """SQLite's errors in one line: RequestError for a bad file, StoreError for the machine.

    StoreError also for a store that was closed, or opened by another thread.

    ``opened`` is the file as it was: what somebody did to it since is named first.
    """
    try:
        yield
    except UnicodeDecodeError as error:  # A text of the schema, which SQLite hands out as it is.
        raise damaged_store_error(path, f"text that is no UTF-8: {error.reason}") from None
    except sqlite3.ProgrammingError as error:
        if "closed database" in str(error):
            raise StoreError(f"store {str(path)!r}: is closed; open it again") from None
        if "same thread" in str(error):
            raise StoreError(
                f"store {str(path)!r}: another thread opened it, and it serves that one; open it "
                "here as well"
            ) from None
        raise
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        change = opened.change(path) if opened is not None else None
        if change is not None and code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise changed(path, change) from error
        if code is None and "decode to UTF-8" in str(error):
            raise damaged_store_error(path, str(error)) from None
        if code is None:
            raise
        raise _meaning(path, mode, code & 0xFF, str(error)) from error


_NONSENSE = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_CONSTRAINT,
)
"""What no sound store answers to the statements here."""


def _meaning(path: Path, mode: Mode, code: int, message: str) -> Exception:
    subject = f"store {str(path)!r}"
    if code == sqlite3.SQLITE_NOTADB:
        return DamagedStore(f"{subject}: not a store: {message}; {_way_out(path)}")
    if code == sqlite3.SQLITE_INTERRUPT:
        message = "a statement took more steps than a store of its size can need"
    if code in _NONSENSE:
        return damaged_store_error(path, message)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(f"{subject}: another program kept it locked for {BUSY_TIMEOUT_S:.0f} s")
    if mode == "r" and code == sqlite3.SQLITE_READONLY:
        return RequestError(
            f"{subject}: a write to it was cut off, and undoing that needs write access; copy it "
            "and its -journal file to a writable folder and open it there"
        )
    if mode == "r":
        return RequestError(f"{subject}: cannot be read: {message}")
    promise = "every row acknowledged before is intact"
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return StoreError(
            f"{subject}: cannot be written, is the disk full? ({message}); {promise}"
        )
    return StoreError(
        f"{subject}: cannot be written, is it or its folder read-only? ({message}); {promise}"
    )
