"""The one thread that writes the journal, in group commits: what arrived during the previous fsync, no timer."""

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from fieldlab.model import RecordKind, SignalKey, SignalTable
from fieldlab.model.record import KIND_OF_ROW, Row
from ingest.journal import format as fmt
from ingest.journal.identity import Identity
from ingest.journal.schema import open_writer
from ingest.journal.submissions import Append, Call, Move, Submission, Write, runs
from ingest.stores.base import DeadLetter

log = structlog.get_logger()

IDENTITY = "_identity"
_GROUP = 512  # submissions a commit
_CHECKPOINT_EVERY = 256  # records between two checkpoints of the identity state
_TRIM = 64  # records deleted a commit, at least

_RecordRow = tuple[int, int, int, int, bytes]  # kind, first, last, readings, bytes


class JournalClosedError(Exception):
    """The journal was closed before this was committed: do not acknowledge it."""


class _RefusedError(Exception):
    """A submission that can never be written, and why."""

    def __init__(self, submissions: Sequence[Submission], cause: Exception) -> None:
        super().__init__(str(cause))
        self.submissions = submissions
        self.cause = cause


class Writer:
    """Owns the only connection that writes and checkpoints. `submit` and the attributes are safe from any thread.

    Attributes:
        signals: the durable table of signals.
        position: the newest committed position.
        identity: newest reading and counts of each signal; read only.
        used: bytes of used pages.
        full: whether `used` has reached the cap: readings wait, everything else goes on.
        error: the disk's words while it refuses, else empty.
        set_aside: damaged journals and records kept in files of their own.
    """

    def __init__(self, path: Path, *, max_bytes: int, max_series: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.set_aside = len(list(path.parent.glob(f"{path.stem}.damaged-*")))
        self.error = ""
        self.full = False
        self.used = 0
        self.position = 0
        self.identity = Identity()
        self.stateful: set[str] = set()
        self.listeners: list[Callable[[], None]] = []
        self._since_checkpoint = 0
        self._db = self._open()
        paths = self._db.execute("SELECT path FROM signal ORDER BY id").fetchall()
        self.signals = SignalTable((SignalKey.parse(p) for (p,) in paths), max_series=max_series)
        self._durable_signals = len(paths)
        (self._page_size,) = self._db.execute("PRAGMA page_size").fetchone()
        self._queue: queue.SimpleQueue[Submission | None] = queue.SimpleQueue()
        self._held: list[Append] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._load()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Submissions that are not yet committed."""
        return self._queue.qsize() + len(self._held)

    def submit(self, submission: Submission) -> None:
        """Queue work. Its future fails with `JournalClosedError` if the journal ends first."""
        with self._lock:
            if not self._closing.is_set():
                self._queue.put(submission)
                return
        submission.future.set_exception(JournalClosedError("the journal is closed"))

    def close(self) -> None:
        """Commit what waits, if the disk takes it, and close."""
        with self._lock:
            if self._closing.is_set():
                return
            self._closing.set()
            self._queue.put(None)
        self._thread.join()
        self._db.close()

    # ---- the thread ----

    def _run(self) -> None:
        ending = False
        while not ending:
            group, ending = self._gather()
            if group:
                self._commit_patiently(group)
        _fail(self._held, JournalClosedError("the agent ended while the journal was full"))

    def _gather(self) -> tuple[list[Submission], bool]:
        """The next group, and whether the journal ends after it. Waits for the first submission."""
        group: list[Submission] = []
        if self._held and not self.full:
            group, self._held = list(self._held), []
        while len(group) < _GROUP:
            try:
                submission = self._queue.get(block=not group)
            except queue.Empty:
                break
            if submission is None:
                return group, True
            if self.full and isinstance(submission, Append):
                self._held.append(submission)
            else:
                group.append(submission)
        return group, False

    def _commit_patiently(self, group: list[Submission]) -> None:
        """Commit, again and again while the disk refuses, until it does not or the journal ends."""
        pause = 0.05
        while group:
            try:
                self._commit(group)
            except _RefusedError as e:
                self._undo()
                log.error("journal_refused", file=str(self.path), error=repr(e.cause))  # noqa: TRY400  the submitter gets the exception
                _fail(e.submissions, e.cause)
                group = [s for s in group if s not in e.submissions]
                continue
            except (sqlite3.Error, OSError) as e:
                self._undo()
                if self.error != str(e):
                    log.error("journal_disk_refuses", file=str(self.path), error=str(e))  # noqa: TRY400  the disk is at fault
                self.error = str(e)
                if self._closing.wait(pause):
                    _fail(group, JournalClosedError(f"the agent ended while the disk refused: {e}"))
                    return
                pause = min(pause * 2, 5.0)
                continue
            if self.error:
                log.info("journal_disk_accepts_again", file=str(self.path))
            self.error = ""
            for submission in group:
                submission.future.set_result(None)
            for listener in self.listeners:
                listener()
            return

    def _commit(self, group: list[Submission]) -> None:
        db = self._db
        now = time.time_ns()
        position = self.position
        new_signals = self.signals.since(self._durable_signals)
        db.execute("BEGIN IMMEDIATE")
        rows: list[tuple[int, int, int, int, int, int, bytes]] = []
        moves: list[Move] = []
        for run in runs(group):
            try:
                made = self._make(run, now)
                letters = [letter for s in run if isinstance(s, Write) for letter in s.letters]
                _insert_letters(db, letters, now)
                for s in run:
                    if isinstance(s, Call):
                        s.work(db)
            except (sqlite3.OperationalError, OSError):
                raise
            except Exception as e:
                raise _RefusedError(run, e) from e
            for row in made:
                position += 1
                rows.append((position, row[0], now, *row[1:]))
            moves += [s.move for s in run if isinstance(s, Write) and s.move is not None]
        db.executemany("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        numbered = [(self._durable_signals + i, key.path) for i, key in enumerate(new_signals)]
        db.executemany("INSERT INTO signal VALUES (?, ?)", numbered)
        self._since_checkpoint += len(rows)
        if self._since_checkpoint >= _CHECKPOINT_EVERY:
            moves.append(Move(IDENTITY, position, position, self.identity.snapshot(), None))
            self._since_checkpoint = 0
        for move in moves:
            self._move(move)
        self._trim(2 * len(rows) + _TRIM)
        db.execute("COMMIT")
        self.position = position
        self._durable_signals += len(new_signals)
        self._measure()

    def _make(self, run: Sequence[Submission], now: int) -> list[_RecordRow]:
        """Records for a run of appends, or for one other submission."""
        first = run[0]
        if isinstance(first, Append):
            return self._make_readings([s for s in run if isinstance(s, Append)], first.kind, now)
        if not isinstance(first, Write):
            return []
        made: list[_RecordRow] = []
        if first.tick is not None:
            made.append((int(RecordKind.TICK), first.tick, first.tick, 0, fmt.encode_tick(first.tick)))
        by_kind: dict[RecordKind, list[Row]] = {}
        for row in first.rows:
            by_kind.setdefault(KIND_OF_ROW[type(row)], []).append(row)
        for kind, rows in by_kind.items():
            times = [getattr(row, "time", now) for row in rows]
            made.append((int(kind), min(times), max(times), 0, fmt.encode_rows(kind, rows)))
        return made

    def _make_readings(self, appends: Sequence[Append], kind: RecordKind, now: int) -> list[_RecordRow]:
        decided = [self.identity.decide(a.batch, a.delivery, a.overflow) for a in appends]
        batch, extras = fmt.join(decided)
        if len(batch) == 0 and len(extras.counts) == 0 and not extras.messages:
            return []
        first = int(batch.time.min()) if len(batch) else now
        last = int(batch.time.max()) if len(batch) else now
        return [(int(kind), first, last, len(batch), fmt.encode_readings(kind, batch, extras))]

    def _move(self, move: Move) -> None:
        keep_from = move.keep_from
        if keep_from < 0:
            keep_from = 0 if move.name in self.stateful else move.position
        self._db.execute(
            "INSERT INTO consumer VALUES (?, ?, ?, ?, coalesce(?, ''))"
            " ON CONFLICT (name) DO UPDATE SET position = max(position, excluded.position),"
            " keep_from = max(keep_from, excluded.keep_from), state = coalesce(excluded.state, state),"
            " hash = coalesce(?, hash)",
            (move.name, move.position, keep_from, move.state, move.hash, move.hash),
        )

    def _trim(self, most: int) -> None:
        (oldest,) = self._db.execute("SELECT min(keep_from) FROM consumer").fetchone()
        self._db.execute(
            "DELETE FROM record WHERE position IN"
            " (SELECT position FROM record WHERE position <= ? ORDER BY position LIMIT ?)",
            (oldest or 0, most),
        )

    def _measure(self) -> None:
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        self.used = (pages - free) * self._page_size
        full = self.used >= self.max_bytes
        if full != self.full:
            log.warning("journal_full" if full else "journal_has_room", bytes=self.used, max_bytes=self.max_bytes)
        self.full = full

    def _undo(self) -> None:
        """After a failed commit: the state in memory becomes what the disk has."""
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._load()
        except sqlite3.Error as e:
            log.warning("journal_cannot_be_read", file=str(self.path), error=str(e))

    def _load(self) -> None:
        """Newest position and identity state, as the disk has them."""
        db = self._db
        row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
        self.position = int(row[0]) if row else 0
        found = db.execute("SELECT position, state FROM consumer WHERE name = ?", (IDENTITY,)).fetchone()
        if found is None:
            db.execute("INSERT INTO consumer VALUES (?, 0, 0, NULL, '')", (IDENTITY,))
        start, state = found or (0, None)
        identity = Identity.restore(state) if state else Identity()
        self._since_checkpoint = 0
        while rows := db.execute(
            "SELECT position, time, data FROM record WHERE position > ? AND kind IN (?, ?) ORDER BY position LIMIT 64",
            (start, int(RecordKind.READINGS), int(RecordKind.BACKFILL)),
        ).fetchall():
            for start, committed, blob in rows:
                self._since_checkpoint += 1
                try:
                    record = fmt.decode(start, committed, blob)
                except fmt.DamagedRecordError:
                    continue  # set aside when a consumer reads it
                assert record.batch is not None
                identity.replay(record.batch, fmt.decode_extras(blob))
        self.identity = identity
        self._measure()

    def _open(self) -> sqlite3.Connection:
        try:
            return open_writer(self.path)
        except sqlite3.OperationalError:
            raise  # the disk, a lock or rights: nothing is wrong with the file
        except sqlite3.DatabaseError as e:
            aside = self.path.with_name(f"{self.path.stem}.damaged-{time.time_ns()}")
            self.path.rename(aside)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            self.set_aside += 1
            log.error("journal_set_aside", file=str(aside), error=str(e))  # noqa: TRY400  the file is at fault
            return open_writer(self.path)


def _insert_letters(db: sqlite3.Connection, letters: Sequence[DeadLetter], now: int) -> None:
    db.executemany(
        "INSERT INTO deadletter (store, machine, signal, readings, reason, first, last, body, time)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(d.store, d.machine, d.signal, d.readings, d.reason, d.first, d.last, d.body, now) for d in letters],
    )


def _fail(submissions: Sequence[Submission], cause: Exception) -> None:
    for submission in submissions:
        submission.future.set_exception(cause)
