"""Reads the rows of a damaged SQLite database page by page, without its trees: a lost page costs the others nothing.

Format: https://sqlite.org/fileformat2.html. A row is looked for in every page that looks like one of rows, whichever
table it is of; the caller knows its tables. Pages on the free list hold deleted rows: they are passed over while that
list is whole.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from ingest.journal.wal import read_log

Value = None | int | float | str | bytes

_MAGIC = b"SQLite format 3\0"
_INDEX_INTERIOR, _INDEX_LEAF, _TABLE_LEAF = 2, 10, 13
_MOST = 1 << 28  # bytes of a row: more is damage
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # serial type → bytes


class Row(msgspec.Struct, frozen=True, eq=False):
    """A row: its rowid, or None if its table has none or it is of an index; and its columns as they are stored."""

    rowid: int | None
    values: tuple[Value, ...]


class Pages:
    """The pages of a database, the newest copy of each: from its log, or the file itself. A context manager.

    Attributes:
        size: bytes of a page.
        count: pages that there may be.
        unreadable: rows that were found and could not be read.

    Raises:
        OSError: if the file cannot be opened.
    """

    def __init__(self, file: Path, log: Path) -> None:
        self._file = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        self._log = -1
        head = self._bytes(self._file, 0, 100)
        size, reserved = struct.unpack(">H2xB", head[16:21]) if head[:16] == _MAGIC else (4096, 0)
        self.size = 65_536 if size == 1 else size if size in {1 << i for i in range(9, 16)} else 4096
        self._usable = self.size - (reserved if reserved <= self.size - 480 else 0)
        frames = read_log(log, self.size)
        self._newer = frames.newest() if frames.page_size == self.size else {}
        if self._newer:
            self._log = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
        self.count = max([os.fstat(self._file).st_size // self.size, *self._newer])
        self.unreadable = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._file)
        if self._log >= 0:
            os.close(self._log)

    def rows(self) -> Iterator[Row]:
        """Every row that can be read, of every table and index."""
        free = self._free()
        for number in range(1, self.count + 1):
            if number not in free:
                yield from self._rows_of(number)

    def _rows_of(self, number: int) -> Iterator[Row]:
        page = self._page(number)
        at = 100 if number == 1 else 0
        if len(page) < self.size or page[at] not in (_INDEX_INTERIOR, _INDEX_LEAF, _TABLE_LEAF):
            return
        kind = page[at]
        (cells,) = struct.unpack_from(">H", page, at + 3)
        pointers = at + (12 if kind == _INDEX_INTERIOR else 8)
        if pointers + 2 * cells > self.size:
            return
        for (cell,) in struct.iter_unpack(">H", page[pointers : pointers + 2 * cells]):
            try:
                yield self._row(page, cell, kind)
            except (ValueError, IndexError, struct.error, OverflowError):
                self.unreadable += 1

    def _row(self, page: bytes, at: int, kind: int) -> Row:
        rowid: int | None = None
        if kind == _INDEX_INTERIOR:
            at += 4
        length, at = _varint(page, at)
        if kind == _TABLE_LEAF:
            rowid, at = _varint(page, at)
        if length > _MOST:
            raise ValueError("a row of that length is none of ours")
        return Row(rowid, _values(self._payload(page, at, length, table=kind == _TABLE_LEAF)))

    def _payload(self, page: bytes, at: int, length: int, *, table: bool) -> bytes:
        """A row's bytes, which go on in a chain of other pages where they are many."""
        usable = self._usable
        most = usable - 35 if table else (usable - 12) * 64 // 255 - 23
        if length <= most:
            return _exactly(page[at : at + length], length)
        least = (usable - 12) * 32 // 255 - 23
        local = least + (length - least) % (usable - 4)
        local = local if local <= most else least
        parts = [_exactly(page[at : at + local], local)]
        (following,) = struct.unpack_from(">I", page, at + local)
        left = length - local
        while left > 0:
            if not 0 < following <= self.count:
                raise ValueError("a chain of pages ends early")
            more = self._page(following)
            (following,) = struct.unpack_from(">I", more)
            parts.append(_exactly(more[4 : min(usable, 4 + left)], min(usable - 4, left)))
            left -= usable - 4
        return b"".join(parts)

    def _free(self) -> set[int]:
        """The pages on the free list, as far as it can be followed."""
        found: set[int] = set()
        first = self._page(1)
        trunk = struct.unpack_from(">I", first, 32)[0] if first[:16] == _MAGIC else 0
        while 0 < trunk <= self.count and trunk not in found:
            page = self._page(trunk)
            if len(page) < self.size:
                break
            found.add(trunk)
            trunk, leaves = struct.unpack_from(">II", page)
            if leaves > self.size // 4 - 2:
                break
            found.update(struct.unpack_from(f">{leaves}I", page, 8))
        return found

    def _page(self, number: int) -> bytes:
        if (offset := self._newer.get(number)) is not None:
            return self._bytes(self._log, offset, self.size)
        return self._bytes(self._file, (number - 1) * self.size, self.size)

    @staticmethod
    def _bytes(handle: int, offset: int, count: int) -> bytes:
        try:
            return os.pread(handle, count, offset)
        except OSError:  # a bad sector
            return b""


def _exactly(found: bytes, length: int) -> bytes:
    if len(found) != length:
        raise ValueError("a row is cut short")
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """SQLite's variable-length integer, 64 bits with a sign, and where it ends."""
    value = 0
    for i in range(8):
        byte = data[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    value = value << 8 | data[at + 8]
    return (value - (1 << 64) if value >> 63 else value), at + 9


def _values(payload: bytes) -> tuple[Value, ...]:
    """The columns of a row."""
    end, at = _varint(payload, 0)
    if not 0 < end <= len(payload):
        raise ValueError("a row's header is longer than the row")
    body = end
    found: list[Value] = []
    while at < end:
        kind, at = _varint(payload, at)
        value, body = _value(payload, kind, body)
        found.append(value)
    if body != len(payload):
        raise ValueError("a row's columns do not fill it")
    return tuple(found)


def _value(payload: bytes, kind: int, at: int) -> tuple[Value, int]:
    if kind == 0:
        return None, at
    if kind in (8, 9):
        return kind - 8, at
    if kind == 7:
        return float(struct.unpack_from(">d", payload, at)[0]), at + 8
    length = _INTEGERS.get(kind) or ((kind - 12) // 2 if kind >= 12 else -1)
    if length < 0:
        raise ValueError(f"a column of the unknown type {kind}")
    found = _exactly(payload[at : at + length], length)
    if kind < 12:
        return int.from_bytes(found, "big", signed=True), at + length
    return (found.decode() if kind % 2 else found), at + length
