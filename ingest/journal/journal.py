"""The journal as its users see it: append, write, advance a cursor, read in bounded batches."""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import structlog

from fieldlab.model import Batch, Record, RecordKind
from fieldlab.model.record import Row
from ingest.journal import format as fmt
from ingest.journal.database import IDENTITY
from ingest.journal.identity import Delivery, Identity
from ingest.journal.schema import open_reader
from ingest.journal.submissions import Append, Call, Letters, Move, Submission, Write
from ingest.journal.writer import JournalClosedError, Writer
from ingest.stores.base import DeadLetter

log = structlog.get_logger()

__all__ = ["Chunk", "ConsumerState", "Journal", "JournalClosedError", "JournalStats"]

_READ_RECORDS, _READ_BYTES = 1_000, 32_000_000  # at most, a read


class Chunk(msgspec.Struct, frozen=True, eq=False):
    """A bounded read: the records, and the position up to which nothing of the asked kinds was left out."""

    records: list[Record]
    upto: int


class ConsumerState(msgspec.Struct, frozen=True, eq=False):
    """A consumer's row: where it is, from where it may fold again, its state there, and the hash it was made with."""

    position: int
    keep_from: int
    state: bytes | None
    hash: str


class JournalStats(msgspec.Struct, frozen=True):
    """The journal's own figures: bytes used, cap, records, newest position, waiting submissions, damage, error.

    And the dead letters there are, and those that were dropped for want of room among them.
    """

    bytes: int
    max_bytes: int
    records: int
    position: int
    waiting: int
    full: bool
    set_aside: int
    error: str
    letters: int = 0
    letters_dropped: int = 0


class Journal:
    """The durable log. Every method is safe to call from any thread; futures are done after the fsync.

    Args:
        path: the database file; its folder exists.
        max_bytes: the cap on used pages. At the cap readings wait (`stats().full`); everything else goes on.
        max_series: the cap on signals.

    Attributes:
        damaged: called with an interval of commits, ns, and words, when a record of it cannot be read.

    Raises:
        FieldlabError: if the file is of a newer format, cannot be opened, or is open in another program.
    """

    def __init__(self, path: Path, *, max_bytes: int = 2_000_000_000, max_series: int = 100_000) -> None:
        self._writer = Writer(path, max_bytes=max_bytes, max_series=max_series)
        self.signals = self._writer.signals
        self._idle: list[sqlite3.Connection] = []  # readers, each used by one thread at a time
        self._closed = False
        self._lock = threading.Lock()
        self.damaged: Callable[[int, int, str], None] = lambda _start, _end, _words: None

    # ---- writing ----

    def append(
        self,
        batch: Batch,
        *,
        delivery: Delivery | None = None,
        overflow: dict[int, int] | None = None,
        kind: RecordKind = RecordKind.READINGS,
    ) -> "Future[None]":
        """Keep readings. While the journal is full or the disk refuses, the future stays pending."""
        return self._submit(Append(batch, delivery, overflow, kind))

    def set_aside(self, letters: Sequence[DeadLetter], *, delivery: Delivery | None = None) -> "Future[None]":
        """Keep input that could not be read, but for messages that are known already: they were redelivered.

        Letters and what makes their messages known commit in one transaction. `counts` of a letter are counted as
        rejected, or as duplicates if it is known. They wait like readings while the journal is full.
        """
        return self._submit(Letters(letters, delivery))

    def write(
        self,
        rows: Sequence[Row] = (),
        *,
        letters: Sequence[DeadLetter] = (),
        work: Callable[[sqlite3.Connection], object] | None = None,
    ) -> "Future[None]":
        """Keep rows (grouped by kind into records) and dead letters, in one transaction; `work` as in `execute`."""
        return self._submit(Write(rows, None, letters, None, work))

    def tick(self, now: int) -> "Future[None]":
        """Note that time went on, for the judgement of silent machines."""
        return self._submit(Write((), now, (), None))

    def advance(
        self,
        name: str,
        position: int,
        *,
        keep_from: int | None = None,
        state: bytes | None = None,
        config_hash: str | None = None,
        rows: Sequence[Row] = (),
        letters: Sequence[DeadLetter] = (),
        work: Callable[[sqlite3.Connection], object] | None = None,
    ) -> "Future[None]":
        """Move a consumer's cursor, with its results and dead letters, in one transaction.

        Args:
            name: the consumer.
            position: all records up to here are done.
            keep_from: records after it may be folded again; absent: `position`, or as it was if the consumer is
                stateful. Give `state` with it: the state there.
            state: the consumer's state at `keep_from`.
            config_hash: the hash of the code and configuration that made the state.
            rows: results.
            letters: what was refused for good.
            work: as in `execute`; if it raises, nothing of this is done.
        """
        move = Move(name, position, -1 if keep_from is None else keep_from, state, config_hash)
        return self._submit(Write(rows, None, letters, move, work))

    def register(self, name: str, *, stateful: bool = False) -> ConsumerState:
        """The consumer's row, made if it is new: it starts at the oldest record there is.

        A stateful consumer's records are kept from its `keep_from`, which only `advance(keep_from=…)` moves.
        """
        if stateful:
            self._writer.stateful.add(name)
        found = self.consumer(name)
        if found is None:
            self.advance(name, 0, keep_from=0).result()
            found = self.consumer(name)
        assert found is not None
        return found

    def retire(self, names: Sequence[str]) -> None:
        """Forget consumers, so that they hold no records any more."""

        def forget(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM consumer WHERE name = ?", [(name,) for name in names])

        self.execute(forget).result()

    def execute(self, work: Callable[[sqlite3.Connection], object]) -> "Future[None]":
        """Run `work` in the writing thread, inside the next transaction. It runs again if that commit fails."""
        return self._submit(Call(work))

    def close(self) -> None:
        """Commit what waits, if the disk takes it, and close. Later submissions fail with `JournalClosedError`."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.close()
        self._writer.close()

    def _submit(self, submission: Submission) -> "Future[None]":
        self._writer.submit(submission)
        return submission.future

    # ---- reading ----

    def read(
        self, after: int, kinds: frozenset[RecordKind], *, max_readings: int = 10_000, upto: int | None = None
    ) -> Chunk:
        """The next records of `kinds` behind `after`: at least one if there is one, about `max_readings` at most.

        A damaged record is set aside and passed over.
        """
        end = self.position if upto is None else upto
        where = f"kind IN ({_marks(kinds)}) AND position > ? AND position <= ? ORDER BY position"
        last, count, readings, size = 0, 0, 0, 0
        more = False
        with self._reader() as db:
            sizes = db.execute(
                f"SELECT position, readings, length(data) FROM record WHERE {where}",  # noqa: S608  marks are integers
                (after, end),
            )
            for position, length, weight in sizes:
                readings += length
                size += weight
                more = count > 0 and (readings > max_readings or count >= _READ_RECORDS or size > _READ_BYTES)
                if more:
                    break
                last, count = position, count + 1
            sizes.close()
            blobs = db.execute(
                f"SELECT position, time, data FROM record WHERE {where}",  # noqa: S608  same
                (after, last),
            ).fetchall()
        records = []
        for position, committed, blob in blobs:
            try:
                records.append(fmt.decode(position, committed, blob))
            except fmt.DamagedRecordError as e:
                self._put_aside(position, committed, blob, str(e))
        return Chunk(records, last if more else max(end, after))

    def consumer(self, name: str) -> ConsumerState | None:
        """A consumer's row."""
        row = self._one("SELECT position, keep_from, state, hash FROM consumer WHERE name = ?", name)
        return None if row is None else ConsumerState(*row)

    def consumers(self) -> list[str]:
        """The names of all consumers."""
        with self._reader() as db:
            found = db.execute("SELECT name FROM consumer WHERE name != ? ORDER BY name", (IDENTITY,)).fetchall()
        return [name for (name,) in found]

    def select(self, query: str, given: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of a bounded query of the journal's other tables (README.md)."""
        with self._reader() as db:
            return db.execute(query, tuple(given)).fetchall()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection that only reads, and sees the journal as it is at one moment; the log grows meanwhile."""
        with self._reader() as db:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("ROLLBACK")

    def lag(self, position: int, kinds: frozenset[RecordKind]) -> tuple[int, int]:
        """Records and readings of `kinds` behind `position`."""
        row = self._one(
            f"SELECT count(*), coalesce(sum(readings), 0) FROM record WHERE position > ? AND kind IN ({_marks(kinds)})",  # noqa: S608  marks are integers
            position,
        )
        assert row is not None
        return int(row[0]), int(row[1])

    def age(self, position: int, kinds: frozenset[RecordKind]) -> float:
        """Seconds since the oldest record of `kinds` behind `position` was committed; 0 if there is none."""
        row = self._one(
            f"SELECT time FROM record WHERE position > ? AND kind IN ({_marks(kinds)}) ORDER BY position LIMIT 1",  # noqa: S608  marks are integers
            position,
        )
        return 0.0 if row is None else max(0.0, (time.time_ns() - row[0]) / 1e9)

    @property
    def full(self) -> bool:
        """Whether the cap is reached: readings wait until consumers move on."""
        return self._writer.full

    @property
    def error(self) -> str:
        """The disk's words while it refuses, else empty: everything waits until it does not."""
        return self._writer.error

    @property
    def position(self) -> int:
        """The newest committed position."""
        return self._writer.position

    @property
    def identity(self) -> Identity:
        """The counts of each signal; read only. `totals` gives columns that agree with each other."""
        return self._writer.identity

    def held_by(self, name: str) -> bool:
        """Whether the journal is full, and nobody needs older records than this consumer."""
        if not self._writer.full:
            return False
        query = "SELECT name FROM consumer ORDER BY keep_from, name != ? LIMIT 1"
        with self._reader() as db:
            (oldest,) = db.execute(query, (name,)).fetchone()
        return bool(oldest == name)

    def stats(self) -> JournalStats:
        """The journal's own figures."""
        row = self._one(
            "SELECT (SELECT count(*) FROM record), (SELECT count(*) FROM deadletter),"
            " (SELECT coalesce(sum(letters), 0) FROM deadletter_dropped)"
        )
        assert row is not None
        w = self._writer
        return JournalStats(w.used, w.max_bytes, row[0], w.position, w.waiting, w.full, w.set_aside, w.error, *row[1:])

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Have `listener` called, from the writing thread, after each commit."""
        self._writer.listeners.append(listener)

    def _put_aside(self, position: int, committed: int, blob: bytes, reason: str) -> None:
        """Keep a damaged record's bytes in a file, and take it out of the journal."""
        aside = self._writer.path.with_name(f"{self._writer.path.stem}.damaged-{position}")
        try:
            handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(blob)
        except FileExistsError:
            return
        except OSError as e:  # it stays in the journal, and is passed over
            log.error("journal_record_damaged", file=str(aside), position=position, error=reason, aside=str(e))  # noqa: TRY400  the disk is at fault
            aside.unlink(missing_ok=True)
            return
        self._writer.set_aside += 1
        log.error("journal_record_set_aside", file=str(aside), position=position, error=reason)
        before = self._one("SELECT max(time) FROM record WHERE position < ?", position)
        self.damaged(min((before and before[0]) or committed, committed), committed, f"{aside.name}: {reason}")
        self.execute(lambda db: db.execute("DELETE FROM record WHERE position = ?", (position,)))

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        with self._reader() as db:
            found: tuple[Any, ...] | None = db.execute(query, values).fetchone()
        return found

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """A connection that only reads, for this thread alone meanwhile."""
        with self._lock:
            if self._closed:
                raise JournalClosedError("the journal is closed")
            db = self._idle.pop() if self._idle else None
        db = db or open_reader(self._writer.path)
        try:
            yield db
        finally:
            with self._lock:
                keep = not self._closed
                if keep:
                    self._idle.append(db)
            if not keep:
                db.close()


def _marks(kinds: frozenset[RecordKind]) -> str:
    return ",".join(str(int(kind)) for kind in kinds)
