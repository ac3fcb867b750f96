"""What a store's file may cost and what became of it: limits, soundness, a file that was changed.

The file may come from a stranger or from a failing disk, and a sweep holds it open for hours.
"""

import os
import sqlite3
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

MAX_ROW = 64 * 2**20
"""Bytes of a text or a row; a record with a hundred thousand samples has 2 MB."""
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: MAX_ROW,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 100,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 10,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 25_000,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 100,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 1_000,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
STEPS_A_BYTE = 4
"""Steps of SQLite's machine that one statement may take for each byte of the file; counting every
row of the smallest records takes a tenth of one."""
STEPS_FREE = 20_000_000
"""Steps that any statement may take, about a second."""
_STEPS_AT_ONCE = 100_000


def limit(connection: sqlite3.Connection) -> None:
    """Bound what the texts of a file's schema can make SQLite do, before any of it is read."""
    for what, most in _LIMITS.items():
        connection.setlimit(what, most)


class Allowance:
    """Steps that are left of a statement; SQLite asks after every _STEPS_AT_ONCE of them."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._path = path
        self._left = 0
        self.renew()
        connection.set_progress_handler(self._take, _STEPS_AT_ONCE)

    def renew(self) -> None:
        """Before a statement: what a file of this size can need."""
        try:
            size = os.stat(self._path).st_size
        except OSError:  # It was moved away: what is open is read to its end.
            size = 2**40
        self._left = STEPS_FREE + STEPS_A_BYTE * size

    def _take(self) -> int:
        self._left -= _STEPS_AT_ONCE
        return self._left < 0


class Opened(NamedTuple):
    """Which file a path led to when it was opened, and how large it was at least."""

    device: int
    inode: int
    size: int

    @classmethod
    def of(cls, path: Path) -> "Opened":
        """What tells the file apart that is there now."""
        facts = os.stat(path)
        return cls(facts.st_dev, facts.st_ino, facts.st_size)

    def change(self, path: Path) -> str | None:
        """What somebody did to the file since, in words; None where it is still there whole."""
        try:
            now = Opened.of(path)
        except OSError:
            return "it was moved or deleted"
        if (now.device, now.inode) != (self.device, self.inode):
            return "another file is in its place"
        # A store only grows: SQLite keeps the pages that it gives up.
        return "it was truncated" if now.size < self.size else None

    def grown(self, path: Path) -> "Opened":
        """What tells the file apart after a write of our own."""
        return self if self.change(path) else Opened.of(path)


_SOUND: "OrderedDict[str, tuple[int, ...]]" = OrderedDict()
_KEPT = 64


def faults(connection: sqlite3.Connection, path: Path) -> str | None:
    """What is wrong with the pages of the file, None for a sound one; each version is read once.

    Without this a page that is its own child would be walked for ever.
    """
    facts = os.stat(path)
    version = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
    name = os.path.abspath(path)
    if _SOUND.get(name) == version:
        return None
    line = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if line != "ok":
        return str(line)
    _SOUND[name] = version
    _SOUND.move_to_end(name)
    while len(_SOUND) > _KEPT:
        _SOUND.popitem(last=False)
    return None
