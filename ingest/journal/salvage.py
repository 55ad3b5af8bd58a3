"""Makes a new journal of what can be read of a damaged one, and sets the damaged one aside.

The new journal takes the old one's place in one step, which a crash can only delay: `journal.salvaged` is whole or
absent.
"""

import contextlib
import os
import shutil
import sqlite3
import time
from pathlib import Path

import msgspec
import structlog

from fieldlab.model import GapCause, SignalKey, gap_id
from ingest.journal import format as fmt
from ingest.journal.database import IDENTITY
from ingest.journal.pages import Pages, Row, Value
from ingest.journal.schema import FORMAT, TABLES
from ingest.journal.wal import read_log

log = structlog.get_logger()

_TYPES: dict[str, tuple[type, ...]] = {"INTEGER": (int,), "TEXT": (str,), "BLOB": (bytes,), "REAL": (float, int)}
_CAUSE: GapCause = "journal_damaged"
_NEWEST = {"consumer": 1, "gap": 7, "gap_folded": 3}  # the column that only grows: of two copies, which is the newer


class Salvaged(msgspec.Struct, frozen=True):
    """What was kept, and what is known to be missing: rows by table, records missing in the middle, rows unreadable."""

    kept: dict[str, int]
    missing: int
    unreadable: int


class _Table(msgspec.Struct, frozen=True):
    """How a table's rows look: types, which may be empty, how many columns make the key, whether it has rowids."""

    name: str
    types: tuple[str, ...]
    empty: tuple[bool, ...]
    key: int
    rowid: bool

    def take(self, row: Row) -> tuple[Value, ...] | None:
        """The row's columns if it can be one of this table."""
        if (row.rowid is not None) != self.rowid or len(row.values) != len(self.types):
            return None
        values = row.values
        if self.rowid and values[0] is None:
            values = (row.rowid, *values[1:])
        fits = all(
            isinstance(value, _TYPES[kind]) or (value is None and empty)
            for value, kind, empty in zip(values, self.types, self.empty, strict=True)
        )
        return values if fits else None


def damage(path: Path) -> str:
    """What SQLite would not say of a journal that it can open: empty if nothing.

    A log that is damaged before its end, which it cuts short; and an empty file with a log beside it, which it removes.

    Raises:
        OSError: if a file cannot be read.
    """
    logged = _beside(path, "-wal")
    found = read_log(logged)
    if found.damaged:
        return found.damaged
    if (not path.exists() or path.stat().st_size == 0) and found.newest():
        return "the file is empty, and its write-ahead log is not"
    return ""


def salvage(path: Path, reason: str) -> Path:
    """Replace a damaged journal by what can be read of it; where the damaged one is kept.

    Raises:
        OSError: if there is no room for it; everything is as it was.
        sqlite3.Error: the same.
    """
    aside = path.with_name(f"{path.stem}.damaged-{time.time_ns()}")
    making, made = path.with_name(f"{path.stem}.salvaging"), path.with_name(f"{path.stem}.salvaged")
    making.unlink(missing_ok=True)
    try:
        path.touch(0o600)
        found = _collect(path, making)
        _copy(path, aside)
        if (logged := _beside(path, "-wal")).exists():
            _copy(logged, _beside(aside, "-wal"))
    except BaseException:
        for file in (making, aside, _beside(aside, "-wal")):
            file.unlink(missing_ok=True)
        raise
    making.rename(made)
    _sync_folder(path)
    finish(path)
    log.error(
        "journal_set_aside",
        file=str(aside),
        error=reason,
        kept=found.kept,
        records_missing=found.missing,
        rows_unreadable=found.unreadable,
        do="what could be read goes on in a new journal; check the disk",
    )
    return aside


def finish(path: Path) -> None:
    """Put a salvaged journal in its place, if there is one: the rest of `salvage` after a crash."""
    made = path.with_name(f"{path.stem}.salvaged")
    if not made.exists():
        return
    for suffix in ("-wal", "-shm"):
        _beside(path, suffix).unlink(missing_ok=True)  # of the damaged one, which has been copied
    made.replace(path)
    _sync_folder(path)


def _collect(path: Path, into: Path) -> Salvaged:
    """Write every row that can be read into a new database, in one file that is synced."""
    os.close(os.open(into, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    db = sqlite3.connect(into, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=OFF")
        db.execute("PRAGMA synchronous=OFF")
        db.executescript(TABLES)
        db.execute("BEGIN")
        with Pages(path, _beside(path, "-wal")) as pages:
            small, sequence, bent = _read(db, pages)
            unreadable = pages.unreadable
        for table, rows in small.items():
            if rows:
                marks = ",".join("?" * len(next(iter(rows.values()))))
                db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows.values())  # noqa: S608  our tables
        db.executemany("INSERT OR IGNORE INTO record VALUES (?, ?, ?, ?, ?, ?, ?)", bent)
        db.execute("INSERT OR REPLACE INTO meta VALUES ('format', ?)", (str(FORMAT),))
        _fill_signals(db)
        missing = _continue(db, sequence)
        _note_gap(db)
        names = [table for table in (*small, "record") if table != "meta"]
        kept = {name: int(db.execute(f"SELECT count(*) FROM {name}").fetchone()[0]) for name in names}  # noqa: S608  same
        db.execute("COMMIT")
    finally:
        db.close()
    handle = os.open(into, os.O_RDWR)
    os.fsync(handle)
    os.close(handle)
    return Salvaged(kept, missing, unreadable)


def _read(
    db: sqlite3.Connection, pages: Pages
) -> tuple[dict[str, dict[tuple[Value, ...], tuple[Value, ...]]], dict[str, int], list[tuple[Value, ...]]]:
    """The rows of all small tables by key, the newest positions given, and records whose bytes are damaged.

    Whole records are written at once: they are many.
    """
    tables = _tables(db)
    small: dict[str, dict[tuple[Value, ...], tuple[Value, ...]]] = {t.name: {} for t in tables if t.name != "record"}
    sequence: dict[str, int] = {}
    bent: list[tuple[Value, ...]] = []
    for row in pages.rows():
        if row.rowid is not None and len(row.values) == 2 and row.values[0] in ("record", "deadletter"):
            name, value = row.values
            if isinstance(value, int):
                sequence[str(name)] = max(sequence.get(str(name), 0), value)
            continue
        if row.rowid is None and len(row.values) == 2 and isinstance(row.values[1], int):
            path, number = row.values  # the index of signals by path: it knows them too
            if _is_path(path):
                small["signal"].setdefault((number,), (number, path))
            continue
        for table in tables:
            if (values := table.take(row)) is None:
                continue
            if table.name == "record":
                _keep_record(db, values, bent)
            elif table.name != "signal" or _is_path(values[1]):
                _keep(small[table.name], table, values)
            break
    return small, sequence, bent


def _keep_record(db: sqlite3.Connection, values: tuple[Value, ...], bent: list[tuple[Value, ...]]) -> None:
    data = values[-1]
    assert isinstance(data, bytes)
    try:
        fmt.check(data)
    except fmt.DamagedRecordError:
        bent.append(values)  # set aside when it is read, unless another copy of it is whole
        return
    db.execute("INSERT OR IGNORE INTO record VALUES (?, ?, ?, ?, ?, ?, ?)", values)


def _keep(rows: dict[tuple[Value, ...], tuple[Value, ...]], table: _Table, values: tuple[Value, ...]) -> None:
    key = values[: table.key]
    column = _NEWEST.get(table.name)
    if column is not None and key in rows:
        before, now = rows[key][column], values[column]
        if isinstance(before, int) and isinstance(now, int) and abs(now) < abs(before):
            return
    rows[key] = values


def _is_path(value: Value) -> bool:
    try:
        SignalKey.parse(value if isinstance(value, str) else "")
    except ValueError:
        return False
    return True


def _tables(db: sqlite3.Connection) -> list[_Table]:
    found = []
    for name, sql in db.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ):
        columns = db.execute(f"PRAGMA table_info({name})").fetchall()
        found.append(
            _Table(
                name,
                tuple(kind for _, _, kind, *_ in columns),
                tuple(not needed and not key for *_, needed, _, key in columns),
                sum(key > 0 for *_, key in columns),
                "WITHOUT ROWID" not in sql,
            )
        )
    return found


def _fill_signals(db: sqlite3.Connection) -> None:
    """Numbers whose path is lost get one that says so: the numbers after them must stay what they are."""
    known = {number for (number,) in db.execute("SELECT id FROM signal")}
    lost = [number for number in range(max(known, default=-1)) if number not in known]
    names = [(number, f"unknown/unknown/unknown/unknown/signal-{number}") for number in lost]
    db.executemany("INSERT INTO signal VALUES (?, ?)", names)
    if lost:
        log.error("journal_signals_lost", numbers=lost[:20], count=len(lost))


def _continue(db: sqlite3.Connection, sequence: dict[str, int]) -> int:
    """Positions go on after the newest that was ever given; how many records are missing behind the oldest there is."""
    newest, oldest, count = db.execute("SELECT max(position), min(position), count(*) FROM record").fetchone()
    (cursor,) = db.execute("SELECT max(max(position, keep_from)) FROM consumer").fetchone()
    given = {"record": max(newest or 0, cursor or 0, sequence.get("record", 0))}
    (letter,) = db.execute("SELECT max(id) FROM deadletter").fetchone()
    given["deadletter"] = max(letter or 0, sequence.get("deadletter", 0))
    db.execute("DELETE FROM sqlite_sequence")
    db.executemany("INSERT INTO sqlite_sequence VALUES (?, ?)", given.items())
    if not count:
        return 0
    return int(given["record"]) - int(oldest) + 1 - int(count)


def _note_gap(db: sqlite3.Connection) -> None:
    """A gap of every signal, over the records that are missing and that a consumer has not had.

    Whose readings they held, nobody can say. Its revision is 0: the stores are yet to be told.
    """
    (done,) = db.execute("SELECT min(position) FROM consumer WHERE name != ?", (IDENTITY,)).fetchone()
    (given,) = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
    now = time.time_ns()
    floor, before, start, end, gone = done or 0, 0, 0, 0, 0
    for position, committed in (*db.execute("SELECT position, time FROM record ORDER BY position"), (given + 1, now)):
        if position - 1 > floor:
            start, end, gone = start or before or committed, committed, gone + position - 1 - floor
        floor, before = max(floor, position), committed
    if not gone:
        return
    words = f"the journal was damaged: {gone} of its records, which not every store had, could not be read"
    signals = [(number, SignalKey.parse(path)) for number, path in db.execute("SELECT id, path FROM signal")]
    db.executemany(
        "INSERT OR IGNORE INTO gap VALUES (?, ?, 'journal', ?, ?, ?, 'unverifiable', 0, 0, 0, ?)",
        [(gap_id(key, "journal", _CAUSE, start), number, _CAUSE, start, end, words) for number, key in signals],
    )


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _copy(file: Path, to: Path) -> None:
    """Another name for the same bytes where that can be had, else a copy."""
    with contextlib.suppress(OSError):
        if not file.name.endswith("-wal"):
            os.link(file, to)
            return
    shutil.copyfile(file, to)
    to.chmod(0o600)
    handle = os.open(to, os.O_RDWR)
    os.fsync(handle)
    os.close(handle)


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
