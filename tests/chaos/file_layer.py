"""A layer between SQLite and its files, in this process: records what it does to them, and refuses on demand.

It stands in front of the VFS of the very SQLite library that Python's `sqlite3` uses, so the journal runs unchanged.
The original fills in each opened file; then four of its methods are replaced by ours, which call the original's.
Structures: https://sqlite.org/c3ref/vfs.html and https://sqlite.org/c3ref/io_methods.html.
"""

import _sqlite3
import ctypes
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

P, INT, L = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
READ = ctypes.CFUNCTYPE(INT, P, P, INT, L)
WRITE = ctypes.CFUNCTYPE(INT, P, P, INT, L)
TRUNCATE = ctypes.CFUNCTYPE(INT, P, L)
SYNC = ctypes.CFUNCTYPE(INT, P, INT)
OPEN = ctypes.CFUNCTYPE(INT, P, P, P, INT, P)
DELETE = ctypes.CFUNCTYPE(INT, P, P, INT)

SQLITE_READONLY, SQLITE_FULL = 8, 13
SQLITE_IOERR_READ, SQLITE_IOERR_WRITE, SQLITE_IOERR_FSYNC = (10 | n << 8 for n in (1, 3, 4))
_MAIN_DB = 0x100


class _Methods(ctypes.Structure):
    _fields_ = [
        ("version", INT),
        *((name, P) for name in ("close", "read", "write", "truncate", "sync", "size", "lock", "unlock", "reserved")),
        *(
            (name, P)
            for name in ("control", "sector", "device", "map", "shm_lock", "barrier", "unmap", "fetch", "unfetch")
        ),
    ]


class _Vfs(ctypes.Structure):
    _fields_ = [
        ("version", INT),
        ("file_bytes", INT),
        ("longest_path", INT),
        ("next", P),
        ("name", ctypes.c_char_p),
        ("data", P),
        *((name, P) for name in ("open", "delete", "access", "full_path", "dlopen", "dlerror", "dlsym", "dlclose")),
        *((name, P) for name in ("random", "sleep", "time", "error", "time64", "set_call", "get_call", "next_call")),
    ]


class Operation(NamedTuple):
    """What SQLite did to a file: open, write, truncate (to `offset`), sync or delete (`offset` 1: synced, too)."""

    file: str
    what: str
    offset: int = 0
    data: bytes = b""


class FileLayer:
    """Attributes: `operations` so far, in order; `refuse`: what to answer (what, file) instead of doing it, or 0."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.refuse: Callable[[str, str], int] = lambda what, file: 0
        self.lock = threading.Lock()
        self._names: dict[int, str] = {}
        self._ours: dict[int, _Methods] = {}
        self._keep: list[Any] = []
        self._library = ctypes.CDLL(_sqlite3.__file__)
        self._library.sqlite3_vfs_find.restype = P
        self._library.sqlite3_vfs_find.argtypes = [ctypes.c_char_p]
        self._library.sqlite3_vfs_register.argtypes = [P, INT]
        self._library.sqlite3_vfs_unregister.argtypes = [P]
        self._first = self._library.sqlite3_vfs_find(None)
        original = _Vfs.from_address(self._first)
        self._open, self._delete = OPEN(original.open), DELETE(original.delete)
        self._vfs = _Vfs.from_buffer_copy(original)
        self._vfs.name = b"recorded"
        self._vfs.open, self._vfs.delete = self._of(OPEN, self._opened), self._of(DELETE, self._deleted)

    def install(self) -> None:
        """Stand before every file that SQLite opens from now on."""
        self._library.sqlite3_vfs_register(ctypes.addressof(self._vfs), 1)

    def remove(self) -> None:
        """Be gone; all connections are closed."""
        self._library.sqlite3_vfs_register(self._first, 1)
        self._library.sqlite3_vfs_unregister(ctypes.addressof(self._vfs))

    def _of(self, kind: Any, call: Callable[..., int]) -> Any:
        made = kind(call)
        self._keep.append(made)  # SQLite holds nothing but its address
        return ctypes.cast(made, P)

    def note(self, file: str, what: str, offset: int = 0, data: bytes = b"") -> None:
        """Put an operation, or any other event, in its place among the operations."""
        with self.lock:
            self.operations.append(Operation(file, what, offset, data))

    def _opened(self, _: int, name: int | None, file: int, flags: int, out: int | None) -> int:
        path = ctypes.string_at(name).decode() if name else ""
        if code := self.refuse("open", path):
            return code
        if code := self._open(self._first, name, file, flags, out):
            return int(code)
        pointer = P.from_address(file)
        if pointer.value:
            self._names[file] = path
            pointer.value = ctypes.addressof(self._methods(pointer.value))
            self.note(path, "open")
        return 0

    def _deleted(self, _: int, name: int, sync: int) -> int:
        path = ctypes.string_at(name).decode()
        self.note(path, "delete", sync)
        return int(self._delete(self._first, name, sync))

    def _methods(self, address: int) -> _Methods:
        """The original's methods, but for ours; the original has several sets."""
        if address in self._ours:
            return self._ours[address]
        theirs = _Methods.from_address(address)
        read, write = READ(theirs.read), WRITE(theirs.write)
        truncate, sync = TRUNCATE(theirs.truncate), SYNC(theirs.sync)

        def our_read(file: int, into: int, count: int, offset: int) -> int:
            return self.refuse("read", self._names.get(file, "")) or int(read(file, into, count, offset))

        def our_write(file: int, data: int, count: int, offset: int) -> int:
            name = self._names.get(file, "")
            if code := self.refuse("write", name):
                return code
            self.note(name, "write", offset, ctypes.string_at(data, count))
            return int(write(file, data, count, offset))

        def our_truncate(file: int, size: int) -> int:
            self.note(self._names.get(file, ""), "truncate", size)
            return int(truncate(file, size))

        def our_sync(file: int, flags: int) -> int:
            name = self._names.get(file, "")
            if code := self.refuse("sync", name):
                return code
            code = int(sync(file, flags))
            self.note(name, "sync")
            return code

        ours = _Methods.from_buffer_copy(theirs)
        ours.read, ours.write = self._of(READ, our_read), self._of(WRITE, our_write)
        ours.truncate, ours.sync = self._of(TRUNCATE, our_truncate), self._of(SYNC, our_sync)
        # Memory-mapped reads would go past us: version 2 has none.
        ours.version = min(ours.version, 2)
        self._ours[address] = ours
        return ours


@contextmanager
def installed() -> Iterator[FileLayer]:
    """A layer in front of all files that SQLite opens meanwhile."""
    layer = FileLayer()
    layer.install()
    try:
        with sqlite3.connect(":memory:") as probe:
            probe.execute("SELECT 1")
        probe.close()
        yield layer
    finally:
        layer.remove()
