"""Bounds the dead letters of a journal: the oldest go, counted by store, in the transaction that brings more."""

import sqlite3
from collections.abc import Sequence

import structlog

from ingest.stores.base import DeadLetter

log = structlog.get_logger()

MOST_LETTERS = 10_000
MOST_BYTES = 64_000_000
_ROOM = 0.9  # of a bound that was reached: so that not every letter looks for others to drop
_REASON = "the dead letters were full"


class LetterBox:
    """Writes dead letters and keeps them below the bounds.

    Args:
        most_bytes: of their bodies.
        most: letters.
    """

    def __init__(self, most_bytes: int, most: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._letters = self._bytes = -1  # never fewer than there are; -1: not counted yet

    def insert(self, db: sqlite3.Connection, letters: Sequence[DeadLetter], now: int) -> None:
        """Add letters inside a transaction, which drops the oldest where they are too many."""
        if not letters:
            return
        db.executemany(
            "INSERT INTO deadletter (store, machine, signal, readings, reason, first, last, body, time)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(d.store, d.machine, d.signal, d.readings, d.reason, d.first, d.last, d.body, now) for d in letters],
        )
        if self._letters >= 0:
            self._letters += len(letters)
            self._bytes += sum(len(letter.body) for letter in letters)
        if self._letters < 0 or self._letters > self._most or self._bytes > self._most_bytes:
            self._letters, self._bytes = db.execute(
                "SELECT count(*), coalesce(sum(length(body)), 0) FROM deadletter"
            ).fetchone()
        if self._letters > self._most or self._bytes > self._most_bytes:
            self._drop(db)

    def _drop(self, db: sqlite3.Connection) -> None:
        dropped: dict[str, list[int]] = {}
        newest = 0
        oldest = db.execute("SELECT id, store, readings, first, last, length(body) FROM deadletter ORDER BY id")
        for number, store, readings, first, last, size in oldest:
            if self._letters <= self._most * _ROOM and self._bytes <= self._most_bytes * _ROOM:
                break
            newest = number
            self._letters, self._bytes = self._letters - 1, self._bytes - size
            sums = dropped.setdefault(store, [0, 0, first, last])
            dropped[store] = [sums[0] + 1, sums[1] + readings, min(sums[2], first), max(sums[3], last)]
        db.execute("DELETE FROM deadletter WHERE id <= ?", (newest,))
        db.executemany(
            "INSERT INTO deadletter_dropped VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " letters = letters + excluded.letters, readings = readings + excluded.readings,"
            " first = min(first, excluded.first), last = max(last, excluded.last)",
            [(store, _REASON, *sums) for store, sums in dropped.items()],
        )
        self._letters = -1  # if this transaction fails, there are more: count again
        for store, (letters, readings, *_) in dropped.items():
            log.warning("deadletters_dropped", store=store, letters=letters, readings=readings, reason=_REASON)
