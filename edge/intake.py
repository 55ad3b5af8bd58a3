"""Where sources put what they read: scaled, counted and handed to the journal."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future

import msgspec
import structlog

from edge.catalog import Catalog
from fieldlab.model import Batch, Guarantee, RecordKind, SignalInfo, SignalKey
from fieldlab.model.record import Row
from ingest.journal import Delivery, Journal
from ingest.stores.base import DeadLetter

log = structlog.get_logger()


class Intake:
    """The `Sink` of every source.

    Attributes:
        set_aside_count: input that could not be read, since the agent started.
    """

    def __init__(self, journal: Journal, catalog: Catalog) -> None:
        self._journal = journal
        self._catalog = catalog
        self._lock = threading.Lock()
        self.set_aside_count = 0

    def describe(self, info: SignalInfo, *, scale: float = 1.0, offset: float = 0.0) -> int:
        """See `edge.sources.base.Sink`."""
        return self._catalog.describe(info, scale=scale, offset=offset)

    def index(self, key: SignalKey, guarantee: Guarantee = "end-to-end") -> int:
        """See `edge.sources.base.Sink`."""
        return self._catalog.index(key, guarantee)

    def append(
        self, batch: Batch, *, delivery: Delivery | None = None, overflow: dict[int, int] | None = None
    ) -> "Future[None]":
        """See `edge.sources.base.Sink`."""
        return self._journal.append(self._catalog.apply(batch), delivery=delivery, overflow=overflow)

    def backfill(self, batch: Batch) -> "Future[None]":
        """See `edge.sources.base.Sink`."""
        return self._journal.append(self._catalog.apply(batch), kind=RecordKind.BACKFILL)

    def write(self, rows: Sequence[Row]) -> "Future[None]":
        """See `edge.sources.base.Sink`."""
        return self._journal.write(rows)

    def set_aside(self, letters: Sequence[DeadLetter], *, delivery: Delivery | None = None) -> "Future[None]":
        """See `edge.sources.base.Sink`."""
        with self._lock:
            self.set_aside_count += len(letters)
        return self._journal.set_aside([self._attributed(letter) for letter in letters], delivery=delivery)

    def _attributed(self, letter: DeadLetter) -> DeadLetter:
        """`letter` with the index of its signal, if that is known, so that the ledger counts it as rejected."""
        if letter.counts or not letter.signal:
            return letter
        try:
            index = self._journal.signals.find(SignalKey.parse(f"{letter.machine}/{letter.signal}"))
        except ValueError:
            return letter
        return letter if index is None else msgspec.structs.replace(letter, counts={index: letter.readings})
