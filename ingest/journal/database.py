"""The journal's database: makes records of submissions, commits them, and trims what nobody needs any more.

Used by the writing thread alone.
"""

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from fieldlab.errors import FieldlabError
from fieldlab.model import SignalKey, SignalTable, concat
from ingest.journal import format as fmt
from ingest.journal import letters
from ingest.journal.identity import Identity, Part
from ingest.journal.letters import LetterBox
from ingest.journal.schema import JournalDamagedError, check, open_writer
from ingest.journal.submissions import RECORD_READINGS, Append, Call, Letters, Move, Piece, Submission, Write
from ingest.stores.base import DeadLetter

log = structlog.get_logger()

IDENTITY = "_identity"
_CHECKPOINT_RECORDS = (
    4096  # records between two checkpoints of the identity state, at most: folding them again is short
)
_CHECKPOINT_BYTES = 1 << 20  # or so many bytes of them, or twice the state's own
_TRIM_RECORDS, _TRIM_BYTES = 256, 1 << 20  # deleted a commit, besides twice what it adds: large deletes stall and bloat
_ROOM = 0.95  # of the cap: below it a full journal takes readings again

# SQLite's result codes that say: not now, or not on this disk. Anything else is the submission's own fault.
_DISK = frozenset({3, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 26})


class Made(msgspec.Struct, frozen=True, eq=False):
    """Submissions that are committed together, and their records. Made once, also if the commit is tried again."""

    submissions: list[Submission]
    pieces: list[Piece]
    letters: Sequence[DeadLetter] = ()


class Database:
    """Owns the only connection that writes and checkpoints.

    Attributes:
        signals: the durable table of signals.
        identity: newest reading and counts of each signal.
        position: the newest committed position.
        used: bytes of used pages.
        full: whether `used` reached the cap.
        backlog: whether there is more to trim.
        stateful: consumers whose `keep_from` moves only when told.

    Raises:
        FieldlabError: if the file is of a newer format, or cannot be opened.
        sqlite3.DatabaseError: if it is not a database, or damaged.
    """

    def __init__(self, path: Path, *, max_bytes: int, max_series: int) -> None:
        self.max_bytes = max_bytes
        self.full = self.backlog = False
        self.used = self.position = 0
        self.identity = Identity()
        self.stateful: set[str] = set()
        self._letters = LetterBox(min(letters.MOST_BYTES, max_bytes // 4), letters.MOST_LETTERS)
        self._folded = 0  # the position of the identity's checkpoint
        self._since = self._since_bytes = self._state_bytes = 0  # records and bytes after it; the state's own bytes
        try:
            self._db = open_writer(path)
        except OSError as e:
            raise FieldlabError(f"{path}: the journal cannot be opened: {e}") from e
        try:
            check(self._db)
            (self._page_size,) = self._db.execute("PRAGMA page_size").fetchone()
            self.signals = SignalTable(_known(self._db), max_series=max_series)
            self._durable_signals = len(self.signals)
            self.load()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close; the write-ahead log is checkpointed if no reader is left."""
        self._db.close()

    # ---- making ----

    def make(self, run: Sequence[Submission]) -> Made:
        """The records of a run of checked appends, or of one other submission. Appends change the identity state."""
        first = run[0]
        if isinstance(first, Letters):
            return self._make_letters(first)
        if isinstance(first, Append):
            return Made(list(run), self._make_readings([s for s in run if isinstance(s, Append)]))
        return Made(list(run), first.pieces(time.time_ns()) if isinstance(first, Write) else [])

    def _make_readings(self, appends: Sequence[Append]) -> list[Piece]:
        parts: list[Part] = []
        overflow: dict[int, int] = {}
        start = 0
        for a in appends:
            stop = start + len(a.batch)
            if a.delivery is not None:
                parts.append(Part(a.delivery, start, stop))
            for signal, count in (a.overflow or {}).items():
                overflow[signal] = overflow.get(signal, 0) + count
            start = stop
        batch, extras = self.identity.decide(concat([a.batch for a in appends]), parts, overflow)
        if len(batch) == 0 and len(extras.counts) == 0 and not extras.messages:
            return []
        kind, now = appends[0].kind, time.time_ns()
        return [
            Piece(
                int(kind),
                int(b.time.min()) if len(b) else now,
                int(b.time.max()) if len(b) else now,
                len(b),
                fmt.encode_readings(kind, b, e),
            )
            for b, e in fmt.split(batch, extras, RECORD_READINGS)
        ]

    def _make_letters(self, box: Letters) -> Made:
        """The letters of messages that are not known yet, and a record that makes those messages known."""
        keep, extras = self.identity.admit(box.delivery, [letter.counts for letter in box.letters])
        pieces = []
        if len(extras.counts) or extras.messages:
            now = time.time_ns()
            pieces = [Piece(int(box.kind), now, now, 0, fmt.encode_readings(box.kind, box.batch, extras))]
        return Made([box], pieces, [letter for letter, new in zip(box.letters, keep, strict=True) if new])

    # ---- committing ----

    def commit(self, group: Sequence[Made], *, fold: bool | None = None) -> dict[Submission, Exception]:
        """Commit all of `group` in one transaction, but for what is at fault itself, which is given back.

        Args:
            group: what to commit; empty to trim only.
            fold: whether to save the identity state; None: if it is due. Never while it holds what is made but
                neither committed nor in `group`.

        Raises:
            sqlite3.Error: if the disk refuses (`is_disk`): nothing is committed; try the same again.
        """
        db = self._db
        now = time.time_ns()
        position, added = self.position, 0
        refused: dict[Submission, Exception] = {}
        new_signals = self.signals.since(self._durable_signals)
        db.execute("BEGIN IMMEDIATE")
        try:
            for made in group:
                first = made.submissions[0]
                if isinstance(first, Append):
                    self._insert(made.pieces, position, now)
                    self._letters.insert(db, made.letters, now)
                elif (error := self._apply(first, made.pieces, position, now)) is not None:
                    refused[first] = error
                    continue
                position += len(made.pieces)
                added += sum(len(piece.data) for piece in made.pieces)
            numbered = [(self._durable_signals + i, key.path) for i, key in enumerate(new_signals)]
            db.executemany("INSERT INTO signal VALUES (?, ?)", numbered)
            since, since_bytes = self._since + position - self.position, self._since_bytes + added
            folded = fold is not False and self._checkpoint(position, since, since_bytes, now=fold is True)
            backlog = self._trim(2 * (position - self.position), 2 * added)
            used = self._usage()
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self.position, self.backlog = position, backlog
        self._folded, self._since, self._since_bytes = (
            (position, 0, 0) if folded else (self._folded, since, since_bytes)
        )
        self._durable_signals += len(new_signals)
        self._measure(used)
        return refused

    def _insert(self, pieces: Sequence[Piece], position: int, now: int) -> None:
        self._db.executemany(
            "INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(position + i, p.kind, now, p.first, p.last, p.readings, p.data) for i, p in enumerate(pieces, 1)],
        )

    def _apply(self, submission: Submission, pieces: Sequence[Piece], position: int, now: int) -> Exception | None:
        """Rows, letters, a cursor move or a call: all of it, or nothing and the reason."""
        db = self._db
        db.execute("SAVEPOINT one")
        try:
            self._insert(pieces, position, now)
            if isinstance(submission, Write):
                self._letters.insert(db, submission.letters, now)
                if submission.work is not None:
                    submission.work(db)
                if submission.move is not None:
                    self._move(submission.move, position + len(pieces))
            elif isinstance(submission, Call):
                submission.work(db)
        except Exception as e:
            if is_disk(e):
                raise
            db.execute("ROLLBACK TO one")
            db.execute("RELEASE one")
            return e
        db.execute("RELEASE one")
        return None

    def _move(self, move: Move, newest: int) -> None:
        """Move a cursor, forward only, and never beyond what there is: later records would be trimmed unread."""
        keep_from = move.keep_from
        if keep_from < 0:
            keep_from = 0 if move.name in self.stateful else move.position
        self._db.execute(
            "INSERT INTO consumer VALUES (?, ?, ?, ?, coalesce(?, ''))"
            " ON CONFLICT (name) DO UPDATE SET position = max(position, excluded.position),"
            " keep_from = max(keep_from, excluded.keep_from), state = coalesce(excluded.state, state),"
            " hash = coalesce(?, hash)",
            (move.name, min(move.position, newest), min(keep_from, newest), move.state, move.hash, move.hash),
        )

    def _checkpoint(self, position: int, since: int, since_bytes: int, *, now: bool) -> bool:
        """Save the identity state, now and then, and whenever it alone keeps a full journal from being trimmed."""
        due = now or since >= _CHECKPOINT_RECORDS or since_bytes >= max(_CHECKPOINT_BYTES, 2 * self._state_bytes)
        if not due and self.full and since:
            query = "SELECT min(keep_from) FROM consumer WHERE name != ?"
            (others,) = self._db.execute(query, (IDENTITY,)).fetchone()
            due = others is None or others > self._folded
        if due:
            state = self.identity.snapshot()
            self._state_bytes = len(state)
            self._move(Move(IDENTITY, position, position, state, None), position)
        return due

    def _trim(self, more_records: int, more_bytes: int) -> bool:
        """Delete some of what nobody needs any more; whether some is left."""
        (oldest,) = self._db.execute("SELECT min(keep_from) FROM consumer").fetchone()
        most = _TRIM_RECORDS + more_records
        found = self._db.execute(
            "SELECT position, length(data) FROM record WHERE position <= ? ORDER BY position LIMIT ?",
            (oldest or 0, most),
        ).fetchall()
        if not found:
            return False
        budget, upto = _TRIM_BYTES + more_bytes, found[0][0]
        for position, size in found:
            budget -= size
            if budget < 0:
                break
            upto = position
        self._db.execute("DELETE FROM record WHERE position <= ?", (upto,))
        return len(found) == most or bool(upto < found[-1][0])

    def _usage(self) -> int:
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return int((pages - free) * self._page_size)

    def _measure(self, used: int) -> None:
        self.used = used
        full = self.used >= (self.max_bytes * _ROOM if self.full else self.max_bytes)
        if full != self.full:
            log.warning("journal_full" if full else "journal_has_room", bytes=self.used, max_bytes=self.max_bytes)
        self.full = full

    # ---- loading ----

    def load(self) -> None:
        """Newest position and identity state, as the disk has them."""
        db = self._db
        row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
        self.position = int(row[0]) if row else 0
        db.execute("INSERT OR IGNORE INTO consumer VALUES (?, 0, 0, NULL, '')", (IDENTITY,))
        identity, after = restore(db)
        self._folded = after
        self._since = self._since_bytes = 0
        (self._state_bytes,) = db.execute(
            "SELECT coalesce(length(state), 0) FROM consumer WHERE name = ?", (IDENTITY,)
        ).fetchone()
        while rows := db.execute(
            "SELECT position, time, data FROM record WHERE position > ? AND kind IN (1, 6) ORDER BY position LIMIT 16",
            (after,),
        ).fetchall():
            for after, committed, blob in rows:
                self._since += 1
                self._since_bytes += len(blob)
                try:
                    record = fmt.decode(after, committed, blob)
                    assert record.batch is not None
                    identity.replay(record.batch, fmt.decode_extras(blob))
                except fmt.DamagedRecordError:
                    continue  # set aside when a consumer reads it
        self.identity = identity
        self._measure(self._usage())


def _known(db: sqlite3.Connection) -> list[SignalKey]:
    """The signals in the table, by number."""
    found = db.execute("SELECT id, path FROM signal ORDER BY id").fetchall()
    try:
        keys = [SignalKey.parse(path) for _, path in found]
    except (ValueError, AttributeError) as e:
        raise JournalDamagedError(f"a signal has no path: {e}") from e
    if [number for number, _ in found] != list(range(len(found))):
        raise JournalDamagedError("numbers of signals are missing")
    return keys


def restore(db: sqlite3.Connection) -> tuple[Identity, int]:
    """The newest checkpoint of the identity state, and its position; the records after it are yet to be folded."""
    after, state = db.execute("SELECT position, state FROM consumer WHERE name = ?", (IDENTITY,)).fetchone()
    try:
        return (Identity.restore(state) if state else Identity()), after
    except (ValueError, msgspec.MsgspecError) as e:
        log.error("journal_counts_lost", error=str(e), do="the ledger starts again from the oldest record")  # noqa: TRY400  the file is at fault
        return Identity(), 0


def is_disk(error: BaseException) -> bool:
    """Whether SQLite says that the disk, or another program, is what stands in the way."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DISK
