"""What was refused for good: listed, sent again after a repair, or dropped. It lives in the journal's database."""

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import msgspec
import numpy as np

from fieldlab.model import Place, SignalKey
from ingest.journal import Delivery, Journal
from ingest.stores.base import DeadLetter


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as `fieldlab deadletter list` shows it, without its body. Times are ns."""

    id: int
    store: str
    machine: str
    signal: str
    readings: int
    reason: str
    first: int
    last: int


class DeadLetters:
    """The dead letters of a journal. Safe to use from any thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def list(self, *, store: str = "", ids: Sequence[int] = (), limit: int = 10_000) -> list[Listed]:
        """Letters, oldest first; of one store, or with these ids, where that is given."""
        rows = self._journal.select(
            "SELECT id, store, machine, signal, readings, reason, first, last FROM deadletter"
            " WHERE (? = '' OR store = ?) AND (? OR id IN (SELECT value FROM json_each(?))) ORDER BY id LIMIT ?",
            (store, store, not ids, msgspec.json.encode(list(ids)).decode(), limit),
        )
        names = Listed.__struct_fields__
        return [Listed(**dict(zip(names, row, strict=True))) for row in rows]

    def letter(self, listed: Listed) -> DeadLetter:
        """The whole letter.

        Raises:
            KeyError: if it is not there any more.
        """
        rows = self._journal.select("SELECT body FROM deadletter WHERE id = ?", (listed.id,))
        if not rows:
            raise KeyError(listed.id)
        index = self._index(listed)
        about = {name: getattr(listed, name) for name in Listed.__struct_fields__ if name != "id"}
        return DeadLetter(**about, body=rows[0][0], counts={} if index is None else {index: listed.readings})

    def removal(self, number: int) -> Callable[[sqlite3.Connection], None]:
        """Takes one letter out, inside a transaction of the journal; a `KeyError` there undoes what is with it."""

        def remove(db: sqlite3.Connection) -> None:
            if db.execute("DELETE FROM deadletter WHERE id = ?", (number,)).rowcount != 1:
                raise KeyError(number)

        return remove

    def remove(self, ids: Sequence[int]) -> "Future[None]":
        """Forget letters: they were sent again, or nobody wants them."""
        given = [(number,) for number in ids]
        return self._journal.execute(lambda db: db.executemany("DELETE FROM deadletter WHERE id = ?", given))

    def _index(self, listed: Listed) -> int | None:
        try:
            return self._journal.signals.find(SignalKey(Place.parse(listed.machine), listed.signal))
        except ValueError:
            return None  # a topic, or rows of no signal


def once(letter: DeadLetter) -> Delivery:
    """What makes the readings of a source's letter known: kept again after a crash, they are duplicates."""
    told = f"{letter.store}\0{letter.machine}\0{letter.signal}\0{letter.first}\0".encode() + letter.body
    mark = np.frombuffer(hashlib.blake2b(told, digest_size=8).digest(), np.uint64)
    one = np.zeros(1, np.uint32)
    return Delivery("_deadletter", mark.astype(np.uint16), mark, np.ones(1, np.bool_), one)
