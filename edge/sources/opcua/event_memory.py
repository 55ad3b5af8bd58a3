"""Which events are known already, at which time each was written, and which conditions are retained: on disk.

A row of the measurement `event` is identified by machine and time, so two events of one machine at one time are kept
apart by whole nanoseconds. That is decided once, before the journal: the decision is fsynced here, and an event that
comes again, from a Republish, a ConditionRefresh or after a crash, gets the same time. Then writing it again changes
nothing. Once the journal has it, it is not written again.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from edge.sources.opcua.certificates import write_private
from fieldlab.model import MachineEvent, Place

log = structlog.get_logger()

MOST_KNOWN: Final = 100_000
_STEP: Final = 16  # ns between two events of one time; up to that many sources of one machine stay apart as well
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS known (digest BLOB PRIMARY KEY, place TEXT NOT NULL, time INTEGER NOT NULL,
    kept INTEGER NOT NULL DEFAULT 0, seen INTEGER NOT NULL) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS known_time ON known (place, time);
CREATE INDEX IF NOT EXISTS known_seen ON known (seen);
CREATE TABLE IF NOT EXISTS retained (scope TEXT NOT NULL, condition TEXT NOT NULL, branch TEXT NOT NULL,
    event BLOB NOT NULL, PRIMARY KEY (scope, condition, branch)) WITHOUT ROWID;
"""


class Decided(msgspec.Struct, frozen=True):
    """An event with the time that it is written at.

    Attributes:
        digest: of its content.
        row: what to write.
        kept: whether the journal has it already.
    """

    digest: bytes
    row: MachineEvent
    kept: bool


class Seen(msgspec.Struct, frozen=True):
    """An event to decide on.

    Attributes:
        row: at the time that the server gave.
        scope: the monitored item that it came from, for the conditions that are retained.
        timed: whether its time is the server's; that of its arrival says nothing about its identity.
    """

    row: MachineEvent
    scope: str
    timed: bool = True


class EventMemory:
    """One file; all calls come from one thread.

    Args:
        path: the file; made readable by its owner only.
        index: the source's index: events of two sources stay apart by it.
        most: events to remember; those that came longest ago are forgotten first.
    """

    def __init__(self, path: Path, index: int, most: int = MOST_KNOWN) -> None:
        self._offset = index % _STEP
        self._most = most
        try:
            self._db = _open(path)
        except sqlite3.DatabaseError as e:
            if isinstance(e, sqlite3.OperationalError):
                raise  # a disk that is full, or a file that cannot be opened, is no damage
            aside = path.with_name(path.name + ".damaged")
            path.replace(aside)
            log.exception("opcua_event_memory_damaged", file=str(path), kept_as=str(aside))
            self._db = _open(path)
        self._seen = int(self._db.execute("SELECT ifnull(max(seen), 0) FROM known").fetchone()[0])
        self._count = int(self._db.execute("SELECT count(*) FROM known").fetchone()[0])

    def decide(self, events: Sequence[Seen], kept: Iterable[bytes] = ()) -> list[Decided]:
        """The time of each event; the decision is on disk when this returns.

        Args:
            events: in the order in which they came.
            kept: digests that the journal has by now.

        Raises:
            sqlite3.Error: if it cannot be kept; nothing was decided.
        """
        with self._transaction():
            self._db.executemany("UPDATE known SET kept = 1 WHERE digest = ?", [(d,) for d in kept])
            free: dict[tuple[str, int], int] = {}
            found = [self._decide(event, free) for event in events]
            self._forget()
        return found

    def end_refresh(
        self, scope: str, current: Iterable[tuple[str, str]], time: int, event_id: str
    ) -> list[MachineEvent]:
        """Rows that end the conditions which a whole ConditionRefresh did not name: the server retains them no more."""
        named = set(current)
        rows = []
        for condition, branch, event in self._db.execute(
            "SELECT condition, branch, event FROM retained WHERE scope = ?", (scope,)
        ).fetchall():
            if (condition, branch) not in named:
                last = msgspec.json.decode(event, type=MachineEvent)
                detail = {**last.detail, "ended": "the server retains it no more (ConditionRefresh)"}
                ended = msgspec.structs.replace(last, id=event_id, active=None, acknowledged=None, retain=False)
                rows.append(msgspec.structs.replace(ended, time=max(time, last.time), detail=detail))
        return rows

    def note_kept(self, kept: Iterable[bytes]) -> None:
        """The journal has these by now.

        Raises:
            sqlite3.Error: if that cannot be noted; they are then written once more, at the same time.
        """
        self.decide((), kept)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._db)

    def _decide(self, event: Seen, free: dict[tuple[str, int], int]) -> Decided:
        row = event.row
        timed = row if event.timed else msgspec.structs.replace(row, time=0)
        digest = hashlib.blake2b(msgspec.json.encode(timed), digest_size=16).digest()
        place = row.place.path
        self._seen += 1
        found = self._db.execute("SELECT time, kept FROM known WHERE digest = ?", (digest,)).fetchone()
        if found is not None:
            self._db.execute("UPDATE known SET seen = ? WHERE digest = ?", (self._seen, digest))
            time, kept = int(found[0]), bool(found[1])
        else:
            time, kept = self._free(place, row.time + self._offset, free), False
            self._db.execute(
                "INSERT INTO known (digest, place, time, seen) VALUES (?, ?, ?, ?)", (digest, place, time, self._seen)
            )
            self._count += 1
            self._retain(event.scope, row)
        return Decided(digest, msgspec.structs.replace(row, time=time), kept)

    def _free(self, place: str, wanted: int, free: dict[tuple[str, int], int]) -> int:
        """The first time from `wanted` on, in steps, that no other event of the machine has."""
        time = free.get((place, wanted), wanted)
        taken = self._db.execute(
            "SELECT time FROM known WHERE place = ? AND time >= ? AND time % ? = ? ORDER BY time",
            (place, time, _STEP, time % _STEP),
        )
        for (other,) in taken:
            if other != time:
                break
            time += _STEP
        free[place, wanted] = time + _STEP
        return time

    def _retain(self, scope: str, row: MachineEvent) -> None:
        if not row.condition:
            return
        branch = row.detail.get("branch", "")
        if row.retain:
            self._db.execute(
                "INSERT OR REPLACE INTO retained (scope, condition, branch, event) VALUES (?, ?, ?, ?)",
                (scope, row.condition, branch, msgspec.json.encode(row)),
            )
        else:
            self._db.execute(
                "DELETE FROM retained WHERE scope = ? AND condition = ? AND branch = ?", (scope, row.condition, branch)
            )

    def _forget(self) -> None:
        if self._count > self._most:
            surplus = self._count - self._most + self._most // 10
            self._db.execute(
                "DELETE FROM known WHERE digest IN (SELECT digest FROM known ORDER BY seen LIMIT ?)", (surplus,)
            )
            self._count -= surplus
        retained = int(self._db.execute("SELECT count(*) FROM retained").fetchone()[0])
        if retained > self._most:
            log.error("opcua_too_many_conditions", retained=retained, most=self._most)
            self._db.execute(
                "DELETE FROM retained WHERE (scope, condition, branch) IN "
                "(SELECT scope, condition, branch FROM retained LIMIT ?)",
                (retained - self._most,),
            )


class _Transaction:
    """All or nothing, fsynced at the end."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        self._db.execute("ROLLBACK" if kind else "COMMIT")


def _open(path: Path) -> sqlite3.Connection:
    if not path.exists():
        write_private(path, b"")
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db


def memory_path(data: Path, source: str) -> Path:
    """Where a source keeps it."""
    return data / "opcua" / f"{source}.events.db"


def scope_of(place: Place, node: str) -> str:
    """What names a monitored item over restarts: its machine and its notifier."""
    return f"{place.path} {node}"
