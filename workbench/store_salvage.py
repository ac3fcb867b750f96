"""The rows that can still be read from a damaged store, page by page, without trusting its trees.

SQLite gives up on a table when a page on the way to its rows is broken. The rows lie in leaf pages
that describe themselves (https://www.sqlite.org/fileformat2.html, sections 1.6 and 2.1), so every
page of the file is looked at, and every cell that reads as a row of the right width is handed out.
Whether it makes sense is for the caller to check; a stale copy of a row may come up as well.
"""

import struct
from collections.abc import Iterator
from typing import Any

PAGE_SIZE = 4096
"""SQLite's default, taken where the header does not say."""

LEAF = 13
_MAGIC = b"SQLite format 3\0"
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


class Unreadable(ValueError):
    """A cell that does not read as a row."""


def rows(data: bytes, width: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """(rowid, values) of every readable row with ``width`` columns, in the order of the pages."""
    file = _File(data)
    for page in range(1, file.num_pages + 1):
        for cell in file.cells(page):
            try:
                rowid, payload = file.payload(cell)
                values = _values(payload)
            except (Unreadable, IndexError, struct.error, UnicodeDecodeError):
                continue
            if len(values) == width:
                yield rowid, values


class _File:
    """The pages of an SQLite file, of which any may be missing or overwritten."""

    def __init__(self, data: bytes) -> None:
        size = int.from_bytes(data[16:18], "big") if data.startswith(_MAGIC) else PAGE_SIZE
        size = 65536 if size == 1 else size
        self.size = size if 512 <= size <= 65536 and size & (size - 1) == 0 else PAGE_SIZE
        self.data = data
        # The last page may be cut short; its cells fill from its end, so it may hold none.
        self.num_pages = -(-len(data) // self.size)
        self.free = self._free_pages() if data.startswith(_MAGIC) else set()

    def _free_pages(self) -> set[int]:
        """Pages that SQLite has given up: rows in them were deleted."""
        found: set[int] = set()
        trunk = int.from_bytes(self.data[32:36], "big")
        while 0 < trunk <= self.num_pages and trunk not in found:
            at = (trunk - 1) * self.size
            found.add(trunk)
            following, count = struct.unpack_from(">II", self.data.ljust(at + 8, b"\0"), at)
            for i in range(min(count, self.size // 4 - 2)):
                found.add(int.from_bytes(self.data[at + 8 + 4 * i : at + 12 + 4 * i], "big"))
            trunk = following
        return found

    def cells(self, page: int) -> list[int]:
        """Where the cells of a table's leaf page begin in the file; none for any other page."""
        start = (page - 1) * self.size
        header = start + 100 if page == 1 else start
        if page in self.free or header + 8 > len(self.data) or self.data[header] != LEAF:
            return []
        count = int.from_bytes(self.data[header + 3 : header + 5], "big")
        pointers = self.data[header + 8 : min(header + 8 + 2 * count, start + self.size)]
        found = [offset for (offset,) in struct.iter_unpack(">H", pointers[: len(pointers) & ~1])]
        return [start + offset for offset in found if 8 <= offset < self.size]

    def payload(self, at: int) -> tuple[int, bytes]:
        """The row id and the record of the cell at ``at``, with what overflowed to other pages."""
        length, at = _varint(self.data, at)
        rowid, at = _varint(self.data, at)
        if length > len(self.data):
            raise Unreadable("longer than the file")
        most, least = self.size - 35, (self.size - 12) * 32 // 255 - 23
        local = length
        if length > most:
            local = least + (length - least) % (self.size - 4)
            local = local if local <= most else least
        parts, missing = [self._slice(at, local)], length - local
        link = at + local
        while missing:
            page = int.from_bytes(self._slice(link, 4), "big")
            if not 1 < page <= self.num_pages:
                raise Unreadable("its overflow is gone")
            link = (page - 1) * self.size
            take = min(missing, self.size - 4)
            parts.append(self._slice(link + 4, take))
            missing -= take
        return rowid, b"".join(parts)

    def _slice(self, at: int, length: int) -> bytes:
        if at + length > len(self.data):
            raise Unreadable("beyond the end of the file")
        return self.data[at : at + length]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """SQLite's integer of 1 to 9 bytes at ``at``, and where it ends."""
    value = 0
    for i in range(8):
        byte = data[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    return value << 8 | data[at + 8], at + 9


def _values(record: bytes) -> tuple[Any, ...]:
    """The columns of a record: a header of types, then the values."""
    end, at = _varint(record, 0)
    if end > len(record):
        raise Unreadable("a header beyond the record")
    body, found = end, []
    while at < end:
        kind, at = _varint(record, at)
        value, size = _value(record, body, kind)
        if body + size > len(record):
            raise Unreadable("a value beyond the record")
        body += size
        found.append(value)
    return tuple(found)


def _value(record: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in _INTEGERS:
        size = _INTEGERS[kind]
        return int.from_bytes(record[at : at + size], "big", signed=True), size
    if kind == 7:
        return struct.unpack_from(">d", record, at)[0], 8
    if kind in (0, 8, 9):
        return {0: None, 8: 0, 9: 1}[kind], 0
    if kind < 12:
        raise Unreadable("a reserved type")
    size = (kind - 12) // 2
    value = record[at : at + size]
    return (value.decode("utf-8") if kind % 2 else value), size
