"""What was refused for good: listed, sent again after a repair, or dropped. It lives in the journal's database."""

from collections.abc import Sequence
from concurrent.futures import Future

import msgspec

from fieldlab.model import Place, SignalKey
from ingest.journal import Journal
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

    def remove(self, ids: Sequence[int]) -> "Future[None]":
        """Forget letters: they were sent again, or nobody wants them."""
        given = [(number,) for number in ids]
        return self._journal.execute(lambda db: db.executemany("DELETE FROM deadletter WHERE id = ?", given))

    def _index(self, listed: Listed) -> int | None:
        try:
            return self._journal.signals.find(SignalKey(Place.parse(listed.machine), listed.signal))
        except ValueError:
            return None  # a topic, or rows of no signal
