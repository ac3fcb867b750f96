"""The rows that can still be read from a damaged store, page by page, without trusting its trees.

SQLite gives up on a table when a page on the way to its rows is broken. The rows lie in leaf pages
that describe themselves (https://www.sqlite.org/fileformat2.html, sections 1.6 and 2.1), so every
page of the file is looked at, and every cell that reads as a row of the right columns is handed
out. Whether it makes sense is for the caller to check; a stale copy of a row may come up as well.

The file may be a trap. Its pages are read one after the other, holes not at all; the cells of a
page together have no more bytes than the page, and no page carries on two rows: what all of it
costs grows with the bytes that are there.
"""

import errno
import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from workbench.inputs.files import require_file

PAGE_SIZE = 4096
"""SQLite's default, taken where the header does not say."""
MAX_ROW = 64 * 2**20
"""Bytes of a row; the store's own limit of a text."""
MAX_FREE = 1_000_000
"""Pages that SQLite may have given up; a store gives up next to none."""

LEAF = 13
_MAGIC = b"SQLite format 3\0"
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_BLOCK = 2**20

RUNS = "nTTTTTT"
RECORDS = "nITTTTTrIITTTttTT"
"""The columns of a table: n the row's own number, I an integer, r a number or nothing, T a text,
t a text or nothing."""
_TABLES = (RECORDS, RUNS)
_LONGEST = 9 * len(RECORDS) + 2
"""Bytes of the header of a row."""
_KINDS = {
    "n": frozenset({0}),
    "I": frozenset({1, 2, 3, 4, 5, 6, 8, 9}),
    "r": frozenset({0, 1, 2, 3, 4, 5, 6, 7, 8, 9}),
}


class Unreadable(ValueError):
    """A cell that does not read as a row."""


class Salvage:
    """A damaged file, open for reading: ``with closing(Salvage(path)) as file``."""

    def __init__(self, path: Path) -> None:
        self._size = require_file(path, "store").st_size
        self._number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            head = os.pread(self._number, 100, 0)
            size = int.from_bytes(head[16:18], "big") if head.startswith(_MAGIC) else PAGE_SIZE
            size = 65536 if size == 1 else size
            self._page = size if 512 <= size <= 65536 and size & (size - 1) == 0 else PAGE_SIZE
            # The last page may be cut short; its cells fill from its end, so it may hold none.
            self._num_pages = -(-self._size // self._page)
            self._free = self._free_pages(head) if head.startswith(_MAGIC) else set()
        except BaseException:
            os.close(self._number)
            raise

    def close(self) -> None:
        """Release the file."""
        os.close(self._number)

    def digest(self) -> str:
        """Some hex digits of what is in the file."""
        digest = hashlib.sha256()
        for first, block in self._blocks():
            digest.update(first.to_bytes(8, "big") + block)
        return digest.hexdigest()[:8]

    def rows(self) -> Iterator[tuple[str, int, tuple[Any, ...]]]:
        """(RUNS or RECORDS, rowid, values) of every readable row, in the order of the pages."""
        used: set[int] = set()
        for first, block in self._blocks():
            leaves = [at for at in range(0, len(block), self._page) if block[at] == LEAF]
            if first == 1 and block[100:101] == bytes([LEAF]):
                leaves.insert(0, 0)  # The first page begins with the header of the file.
            for at in leaves:
                if first + at // self._page not in self._free:
                    header = 100 if first == 1 and at == 0 else 0
                    yield from self._cells(block[at : at + self._page], header, used)

    def _blocks(self) -> Iterator[tuple[int, bytes]]:
        """The number of a page, and the bytes from there on; nothing for holes."""
        at = 0
        while at < self._size:
            try:
                start = os.lseek(self._number, at, os.SEEK_DATA)
                end = os.lseek(self._number, start, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:  # Nothing but a hole is left.
                    return
                start, end = at, self._size  # The file system does not tell.
            at = max(start // self._page * self._page, at)
            while at < end:
                block = os.pread(self._number, _BLOCK, at)
                if not block:
                    return
                yield at // self._page + 1, block
                at += _BLOCK

    def _read(self, page: int) -> bytes:
        return os.pread(self._number, self._page, (page - 1) * self._page)

    def _free_pages(self, head: bytes) -> set[int]:
        """Pages that SQLite has given up: rows in them were deleted.

        None where the list is not as long as the header says: it is damaged itself.
        """
        pages: set[int] = set()
        trunk, total = struct.unpack_from(">II", head.ljust(40, b"\0"), 32)
        while trunk and total <= min(self._num_pages, MAX_FREE):
            if trunk > self._num_pages or trunk in pages:
                return set()
            page = self._read(trunk).ljust(self._page, b"\0")
            following, count = struct.unpack_from(">II", page)
            leaves = struct.unpack_from(f">{min(count, self._page // 4 - 2)}I", page, 8)
            pages |= {trunk, *leaves}
            if len(pages) > total:
                return set()
            trunk = following
        return pages if len(pages) == total else set()

    def _cells(
        self, page: bytes, header: int, used: set[int]
    ) -> Iterator[tuple[str, int, tuple[Any, ...]]]:
        """The rows of one leaf page; ``used`` are the pages that other rows go on in."""
        count = int.from_bytes(page[header + 3 : header + 5], "big")
        most = min(count, self._page // (2 * len(RUNS)))
        pointers = page[header + 8 : header + 8 + 2 * most]
        room = self._page
        for (at,) in dict.fromkeys(struct.iter_unpack(">H", pointers[: len(pointers) & ~1])):
            try:
                columns, rowid, values, size = self._row(page, at, used)
            except (Unreadable, IndexError, struct.error, UnicodeDecodeError):
                continue
            room -= size
            if room < 0:
                return
            yield columns, rowid, values

    def _row(self, page: bytes, at: int, used: set[int]) -> tuple[str, int, tuple[Any, ...], int]:
        """The table, the row id, the values, and the bytes of its page that the cell takes."""
        if at < 8:
            raise Unreadable("a cell within the header")
        length, start = _varint(page, at)
        rowid, start = _varint(page, start)
        head, after = _varint(page, start)
        if head > _LONGEST:
            raise Unreadable("a header of other columns")
        layout = _layout(page[start : start + head], after - start)
        if layout is None:
            raise Unreadable("a header of other columns")
        if layout.length != length or length > MAX_ROW:
            raise Unreadable("not as long as its values")
        local = self._local(length)
        end = start + local
        if end > len(page) or head > local:
            raise Unreadable("beyond the end of the page")
        payload = page[start:end]
        if length > local:
            following = int.from_bytes(page[end : end + 4], "big")
            payload = b"".join((payload, *self._overflow(following, length - local, used)))
            end += 4
        return layout.columns, rowid, layout.values(payload), end - at

    def _local(self, length: int) -> int:
        """How much of a row of so many bytes lies in its leaf page."""
        most, least = self._page - 35, (self._page - 12) * 32 // 255 - 23
        if length <= most:
            return length
        local = least + (length - least) % (self._page - 4)
        return local if local <= most else least

    def _overflow(self, page: int, missing: int, used: set[int]) -> list[bytes]:
        """What of a row overflowed to other pages, each of which belongs to one row alone."""
        parts = []
        while missing:
            if not 1 < page <= self._num_pages or page in used:
                raise Unreadable("its overflow is gone")
            used.add(page)
            content = self._read(page)
            take = min(missing, self._page - 4)
            if len(content) < 4 + take:
                raise Unreadable("beyond the end of the file")
            parts.append(content[4 : 4 + take])
            missing -= take
            page = int.from_bytes(content[:4], "big")
        return parts


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """SQLite's integer of 1 to 9 bytes at ``at``, and where it ends."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for i in range(1, 8):
        byte = data[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    return value << 8 | data[at + 8], at + 9


class _Texts(NamedTuple):
    """Columns of text that lie side by side in a row."""

    begin: int
    end: int
    spans: tuple[slice, ...]
    """Each column's, from ``begin`` on, after an empty one."""
    split: Callable[[str], tuple[str, ...]]
    """An empty text and the columns, of ASCII as a whole."""

    def columns(self, values: bytes) -> tuple[str, ...]:
        """An empty text and the columns; raises UnicodeDecodeError."""
        text = values[self.begin : self.end]
        if text.isascii():
            return self.split(text.decode("ascii"))
        return tuple(text[span].decode("utf-8") for span in self.spans)


class _Layout(NamedTuple):
    """Where the values of a row lie."""

    columns: str
    """RECORDS or RUNS."""
    length: int
    """Bytes of the whole record, its header included."""
    body: int
    """Where the values begin."""
    texts: tuple[_Texts, ...]
    numbers: Callable[[bytes], tuple[Any, ...]]
    """Those that are written down, of the values; three and six bytes as bytes."""
    odd: tuple[int, ...]
    """Which of the numbers are bytes."""
    fixed: tuple[Any, ...]
    """Values that the header alone says."""
    order: Callable[[list[Any]], tuple[Any, ...]]
    """The columns in order, of all texts, numbers and fixed values one after the other."""

    def values(self, record: bytes) -> tuple[Any, ...]:
        """The columns of a record."""
        values = record[self.body :]
        columns: list[Any] = list(self.numbers(values))
        for number in self.odd:
            columns[number] = int.from_bytes(columns[number], "big", signed=True)
        columns += self.fixed
        for block in self.texts:
            columns += block.columns(values)
        return self.order(columns)


_FIXED = {0: None, 8: 0, 9: 1}
"""Types that are a value."""
_FORMATS = {1: "b", 2: "h", 3: "3s", 4: "i", 5: "6s", 6: "q", 7: "d"}
"""Formats of ``struct`` for numbers, by type."""


@lru_cache(4096)
def _layout(header: bytes, at: int) -> _Layout | None:
    """What a record's header says, from ``at`` on; None for columns of no table."""
    kinds = []
    while at < len(header):
        kind, at = _varint(header, at)
        kinds.append(kind)
    for columns in _TABLES:
        if len(kinds) == len(columns) and all(map(_fits, kinds, columns)):
            return _arranged(columns, kinds, at)
    return None


def _fits(kind: int, column: str) -> bool:
    if column in "Tt":
        return bool(kind >= 13 and kind % 2) or (kind == 0 and column == "t")
    return kind in _KINDS[column]


def _arranged(columns: str, kinds: list[int], body: int) -> _Layout:
    """The layout of a row whose header ends at ``body``."""
    blocks: list[list[tuple[int, int, int]]] = []
    numbers: list[int] = []
    fixed: list[tuple[int, Any]] = []
    odd: list[int] = []
    pattern, end, joined = ">", 0, False
    for column, kind in enumerate(kinds):
        begin, end = end, end + _size(kind)
        if kind in _FIXED:
            fixed.append((column, _FIXED[kind]))
        elif kind < 13:
            if kind in (3, 5):
                odd.append(len(numbers))
            numbers.append(column)
            pattern += _FORMATS[kind]
            joined = False
        else:
            if not joined:
                blocks.append([])
            blocks[-1].append((column, begin, end))
            pattern += f"{end - begin}x"
            joined = True
    texts, places = [], [*numbers, *(column for column, _ in fixed)]
    for block in blocks:
        begin = block[0][1]
        spans = tuple(slice(a - begin, b - begin) for _, a, b in block)
        # An empty one more: of one alone ``itemgetter`` would make no tuple.
        spans = (slice(0, 0), *spans)
        texts.append(_Texts(begin, block[-1][2], spans, itemgetter(*spans)))
        places += [-1, *(column for column, _, _ in block)]
    order = itemgetter(*(places.index(column) for column in range(len(columns))))
    values = tuple(value for _, value in fixed)
    unpack = struct.Struct(pattern).unpack_from
    return _Layout(columns, body + end, body, tuple(texts), unpack, tuple(odd), values, order)


def _size(kind: int) -> int:
    return (kind - 12) // 2 if kind >= 12 else _INTEGERS.get(kind, 8 if kind == 7 else 0)
