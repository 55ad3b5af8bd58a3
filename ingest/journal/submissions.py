"""What can be asked of the writing thread: each a submission, whose future is done when it is fsynced."""

import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import msgspec

from fieldlab.model import Batch, RecordKind
from fieldlab.model.record import Row
from ingest.journal.identity import Delivery
from ingest.stores.base import DeadLetter

RECORD_READINGS = 20_000  # a record is one read: larger ones would make reads unbounded


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


class Write(Submission):
    """Rows, dead letters and a cursor move, all in one transaction."""

    def __init__(
        self, rows: Sequence[Row], tick: int | None, letters: Sequence[DeadLetter], move: "Move | None"
    ) -> None:
        super().__init__()
        self.rows, self.tick, self.letters, self.move = rows, tick, letters, move


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
        joins = isinstance(submission, Append) and isinstance(last, Append) and submission.kind == last.kind
        length = len(submission.batch) if isinstance(submission, Append) else 0
        if joins and size + length <= RECORD_READINGS:
            found[-1].append(submission)
            size += length
        else:
            found.append([submission])
            size = length
    return found
