"""What can be asked of the writing thread: each a submission, whose future is done when it is fsynced."""

import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import msgspec

from fieldlab.model import Batch, RecordKind
from fieldlab.model.record import KIND_OF_ROW, Row
from ingest.journal import format as fmt
from ingest.journal.identity import Delivery
from ingest.stores.base import DeadLetter

_NOTHING = Batch.of([], [], [])
RECORD_READINGS = 20_000  # a record is one read: larger ones would make reads unbounded
_RECORD_ROWS = 5_000


class Piece(msgspec.Struct, frozen=True):
    """A record but for its position: kind, first and last event time, readings, bytes."""

    kind: int
    first: int
    last: int
    readings: int
    data: bytes


class Submission:
    """Work for the writing thread, and the future that is done when it is fsynced."""

    def __init__(self) -> None:
        self.future: Future[None] = Future()
        self.future.set_running_or_notify_cancel()  # nobody may cancel what is about to be committed


class Append(Submission):
    """Readings, raw, with the messages they came from and what was lost before them."""

    def __init__(
        self, batch: Batch, delivery: Delivery | None, overflow: dict[int, int] | None, kind: RecordKind
    ) -> None:
        super().__init__()
        self.batch, self.delivery, self.overflow, self.kind = batch, delivery, overflow, kind

    def check(self, signals: int) -> None:
        """See that it can be committed, once there are `signals` signals.

        Raises:
            ValueError: if it cannot; nothing was changed.
        """
        self.batch.check()
        if self.kind not in (RecordKind.READINGS, RecordKind.BACKFILL):
            raise ValueError(f"readings cannot be a record of kind {self.kind.name}")
        overflow = self.overflow or {}
        if max(int(self.batch.signal.max(initial=0)), *overflow, 0) >= max(signals, 1):
            raise ValueError("a reading's signal is not in the table of signals")
        if min(overflow, default=0) < 0 or (signals == 0 and (len(self.batch) or overflow)):
            raise ValueError("a reading's signal is not in the table of signals")
        check_delivery(self.delivery, len(self.batch))


def check_delivery(delivery: Delivery | None, rows: int) -> None:
    """See that a delivery fits the `rows` readings or letters that came with it.

    Raises:
        ValueError: if it does not.
    """
    if delivery is None:
        return
    first = delivery.first_row
    if not len(delivery.ids) == len(delivery.hashes) == len(delivery.redelivered) == len(first):
        raise ValueError("the columns of a delivery must have one length")
    if len(first) and (int(first.max()) > rows or (first[1:] < first[:-1]).any()):
        raise ValueError("the first rows of a delivery must ascend within its batch")


class Letters(Append):
    """Input that could not be read, with the messages it came from; it waits and keeps its order like readings.

    Args:
        letters: one message each, or several a message: `first_row` of `delivery` counts them.
        delivery: which messages they came from: those that are known already are not kept twice.
    """

    def __init__(self, letters: Sequence[DeadLetter], delivery: Delivery | None) -> None:
        super().__init__(_NOTHING, delivery, None, RecordKind.READINGS)
        self.letters = letters

    def check(self, signals: int) -> None:
        """As in `Append`.

        Raises:
            ValueError: if it cannot be committed; nothing was changed.
        """
        check_delivery(self.delivery, len(self.letters))
        for letter in self.letters:
            f"{letter.store}{letter.machine}{letter.signal}{letter.reason}".encode()
            if not all(-(2**63) <= each < 2**63 for each in (letter.readings, letter.first, letter.last)):
                raise ValueError("a number of a dead letter is beyond 64 bits")
            if any(not 0 <= index < signals or not 0 <= n < 2**31 for index, n in letter.counts.items()):
                raise ValueError("a signal of a dead letter is not in the table of signals")


class Write(Submission):
    """Rows, dead letters, a cursor move and any other work, all in one transaction."""

    def __init__(
        self,
        rows: Sequence[Row],
        tick: int | None,
        letters: Sequence[DeadLetter],
        move: "Move | None",
        work: Callable[[sqlite3.Connection], object] | None = None,
    ) -> None:
        super().__init__()
        self.rows, self.tick, self.letters, self.move, self.work = rows, tick, letters, move, work

    def pieces(self, now: int) -> list[Piece]:
        """The rows as records of one kind each.

        Raises:
            ValueError: if a row cannot be kept.
        """
        made: list[Piece] = []
        if self.tick is not None:
            made.append(Piece(int(RecordKind.TICK), self.tick, self.tick, 0, fmt.encode_tick(self.tick)))
        by_kind: dict[RecordKind, list[Row]] = {}
        for row in self.rows:
            by_kind.setdefault(KIND_OF_ROW[type(row)], []).append(row)
        for kind, all_of_kind in by_kind.items():
            for start in range(0, len(all_of_kind), _RECORD_ROWS):
                rows = all_of_kind[start : start + _RECORD_ROWS]
                times = [getattr(row, "time", now) for row in rows]
                made.append(Piece(int(kind), min(times), max(times), 0, fmt.encode_rows(kind, rows)))
        return made


class Move(msgspec.Struct, frozen=True, eq=False):
    """A consumer's new row; `keep_from` -1: as the consumer's kind has it."""

    name: str
    position: int
    keep_from: int
    state: bytes | None
    hash: str | None


class Call(Submission):
    """Any other work inside the transaction."""

    def __init__(self, work: Callable[[sqlite3.Connection], object]) -> None:
        super().__init__()
        self.work = work


def runs(group: Sequence[Submission]) -> list[list[Submission]]:
    """Neighbouring appends of one kind together, up to a record's worth; everything else alone."""
    found: list[list[Submission]] = []
    size = 0
    for submission in group:
        last = found[-1][-1] if found else None
        joins = (
            isinstance(submission, Append)
            and isinstance(last, Append)
            and submission.kind == last.kind
            and not isinstance(submission, Letters)
            and not isinstance(last, Letters)
        )
        length = len(submission.batch) if isinstance(submission, Append) else 0
        if joins and size + length <= RECORD_READINGS:
            found[-1].append(submission)
            size += length
        else:
            found.append([submission])
            size = length
    return found
