"""The one thread that writes the journal, in group commits: what arrived during the previous fsync, no timer."""

import fcntl
import os
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import structlog

from fieldlab.errors import FieldlabError
from ingest.journal.database import Database, Made, is_disk
from ingest.journal.identity import Identity
from ingest.journal.salvage import damage, finish, salvage
from ingest.journal.schema import JournalDamagedError
from ingest.journal.submissions import Append, Submission, runs

log = structlog.get_logger()

_GROUP = 512  # submissions a commit
_GROUP_READINGS = 200_000  # readings a commit
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # s, between two tries while the disk refuses


class JournalClosedError(Exception):
    """The journal was closed before this was committed: do not acknowledge it."""


class Writer:
    """Runs the writing thread. `submit` and the attributes are safe from any thread.

    Attributes:
        error: the disk's words while it refuses, else empty.
        set_aside: damaged journals and records kept in files of their own.
        listeners: called after each commit.
    """

    def __init__(self, path: Path, *, max_bytes: int, max_series: int) -> None:
        self.path = path
        self.error = ""
        self.listeners: list[Callable[[], None]] = []
        self._lock_file = _own(path)
        self._made = os.fstat(self._lock_file).st_size > 0  # there was a journal before
        try:
            self._database = self._open(max_bytes, max_series)
            if not self._made:
                os.pwrite(self._lock_file, b"made\n", 0)
        except BaseException:
            os.close(self._lock_file)
            raise
        self.signals = self._database.signals
        self.set_aside = sum(not f.name.endswith(("-wal", "-shm")) for f in path.parent.glob(f"{path.stem}.damaged-*"))
        self._queue: queue.SimpleQueue[Submission | None] = queue.SimpleQueue()
        self._held: deque[Append] = deque()  # they wait for room
        self._current: list[Submission] = []  # the group at hand
        self._ending = False
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Submissions that are not yet committed."""
        return self._queue.qsize() + len(self._held) + len(self._current)

    @property
    def position(self) -> int:
        """The newest committed position."""
        return self._database.position

    @property
    def identity(self) -> Identity:
        """Newest reading and counts of each signal; read only."""
        return self._database.identity

    @property
    def used(self) -> int:
        """Bytes of used pages."""
        return self._database.used

    @property
    def max_bytes(self) -> int:
        """The cap on `used`."""
        return self._database.max_bytes

    @property
    def full(self) -> bool:
        """Whether `used` has reached the cap: readings wait, everything else goes on."""
        return self._database.full

    @property
    def stateful(self) -> set[str]:
        """Consumers whose `keep_from` moves only when told."""
        return self._database.stateful

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
            first = not self._closing.is_set()
            if first:
                self._closing.set()
                self._queue.put(None)
        self._thread.join()
        if first:
            self._database.close()
            os.close(self._lock_file)

    # ---- the thread ----

    def _run(self) -> None:
        while not self._ending or (self._held and not self.full and not self.error):
            self._current = self._gather()
            try:
                if self._current:
                    self._commit_patiently(self._make(self._current))
                elif self._database.backlog:
                    self._database.backlog = self._try([]) and self._database.backlog
            except Exception as e:
                log.exception("journal_group_failed", file=str(self.path))
                _fail((s for s in self._current if not s.future.done()), e)
                self._reload()
            self._current = []
        _fail(self._held, JournalClosedError("the agent ended while the journal was full"))
        if not self.error:
            self._finish()

    def _finish(self) -> None:
        """Save the identity state, so that the next start has nothing to fold."""
        try:
            self._try([], fold=True)
        except Exception:
            log.exception("journal_not_folded", file=str(self.path))

    def _gather(self) -> list[Submission]:
        """The next group. Waits for the first submission, but not while there is something to trim."""
        group: list[Submission] = []
        readings = 0
        database = self._database
        while self._held and not database.full and len(group) < _GROUP and readings < _GROUP_READINGS:
            group.append(held := self._held.popleft())
            readings += len(held.batch)
        while not self._ending and len(group) < _GROUP and readings < _GROUP_READINGS:
            try:
                submission = self._queue.get(block=not group and not database.backlog)
            except queue.Empty:
                break
            if submission is None:
                self._ending = True
                break
            if isinstance(submission, Append):
                if database.full or self._held:  # none overtakes another
                    self._held.append(submission)
                    continue
                readings += len(submission.batch)
            group.append(submission)
        return group

    def _make(self, group: Sequence[Submission]) -> list[Made]:
        """The records of a group. What cannot be kept fails here, alone."""
        fit: list[Submission] = []
        signals = len(self.signals)
        for submission in group:
            try:
                if isinstance(submission, Append):
                    submission.check(signals)
                fit.append(submission)
            except Exception as e:  # noqa: BLE001  the submitter gets it
                self._refuse(submission, e)
        made = []
        for run in runs(fit):
            try:
                made.append(self._database.make(run))
            except Exception as e:
                if isinstance(run[0], Append):
                    raise  # the identity state may be half changed
                self._refuse(run[0], e)
        return made

    def _commit_patiently(self, group: list[Made]) -> None:
        """Commit, again and again while the disk refuses, until it does not or the journal ends."""
        pause = _FIRST_PAUSE
        while not self._try(group):
            if self._closing.wait(pause):
                ended = JournalClosedError(f"the agent ended while the disk refused: {self.error}")
                _fail((s for made in group for s in made.submissions), ended)
                return
            pause = min(pause * 2, _LONGEST_PAUSE)
            group += self._make(self._latecomers())
            readings = [made for made in group if isinstance(made.submissions[0], Append)]
            others = [made for made in group if made not in readings]
            if readings and self._try(others, fold=False):
                group = readings  # cursor moves and trimming make room: they must not wait for the readings
                pause = _FIRST_PAUSE if others else pause
        if self.error:
            log.info("journal_disk_accepts_again", file=str(self.path))
        self.error = ""

    def _latecomers(self) -> list[Submission]:
        """What came while the disk refused, but for readings, which wait."""
        found: list[Submission] = []
        while True:
            try:
                submission = self._queue.get(block=False)
            except queue.Empty:
                self._current += found
                return found
            if submission is None:
                self._ending = True
            elif isinstance(submission, Append):
                self._held.append(submission)
            else:
                found.append(submission)

    def _try(self, group: Sequence[Made], *, fold: bool | None = None) -> bool:
        """Commit once, and settle the futures; whether the disk took it."""
        try:
            refused = self._database.commit(group, fold=fold)
        except sqlite3.Error as e:
            if not is_disk(e):
                raise
            words = str(e)
            if _is_damage(e):
                words += ": the journal is damaged; restart the agent, which saves what can be read"
            if self.error != words:
                log.error("journal_disk_refuses", file=str(self.path), error=words)  # noqa: TRY400  the disk is at fault
            self.error = words
            return False
        for made in group:
            for submission in made.submissions:
                if submission in refused:
                    self._refuse(submission, refused[submission])
                else:
                    submission.future.set_result(None)
        if group:
            self._tell()
        return True

    def _tell(self) -> None:
        for listener in self.listeners:
            try:
                listener()
            except Exception:
                log.exception("journal_listener_failed")

    def _refuse(self, submission: Submission, error: Exception) -> None:
        log.error("journal_refused", file=str(self.path), error=repr(error))
        submission.future.set_exception(error)

    def _reload(self) -> None:
        """After a fault of our own: the state in memory becomes what the disk has."""
        try:
            self._database.load()
        except sqlite3.Error as e:
            log.error("journal_cannot_be_read", file=str(self.path), error=str(e))  # noqa: TRY400  the disk is at fault

    def _open(self, max_bytes: int, max_series: int) -> Database:
        """Open the journal; one that is damaged becomes what can be read of it, in a new one.

        Raises:
            FieldlabError: if it cannot be opened, or there is no room to save it.
        """
        path = self.path
        try:
            finish(path)
            if self._made and path.exists() and path.stat().st_size == 0:
                raise JournalDamagedError("the file is empty")
            if words := damage(path):
                raise JournalDamagedError(words)
            return Database(path, max_bytes=max_bytes, max_series=max_series)
        except OSError as e:
            raise FieldlabError(f"{path}: the journal cannot be opened: {e}") from e
        except sqlite3.DatabaseError as e:
            if not _is_damage(e):
                raise FieldlabError(f"{path}: the journal cannot be opened: {e}") from e
            reason = str(e)
        try:
            salvage(path, reason)
        except (OSError, sqlite3.Error) as e:
            raise FieldlabError(
                f"{path}: the journal is damaged ({reason}), and what can be read of it cannot be saved: {e}."
                " It needs as much room again on its disk"
            ) from e
        return Database(path, max_bytes=max_bytes, max_series=max_series)


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _own(path: Path) -> int:
    """Lock the journal for this process: a second writer would give positions twice."""
    lock = path.with_name(f"{path.name}-lock")
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise FieldlabError(f"{path}: the journal cannot be opened: {e}") from e
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise FieldlabError(f"{path}: another program has this journal open; stop it first") from None
    return handle


def _fail(submissions: Iterable[Submission], cause: Exception) -> None:
    for submission in submissions:
        submission.future.set_exception(cause)
