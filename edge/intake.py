"""Where sources put what they read: scaled, counted and handed to the journal."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future

import msgspec
import structlog

from edge.catalog import Catalog
from fieldlab.model import Batch, Gap, GapCause, Guarantee, RecordKind, SignalInfo, SignalKey
from fieldlab.model.record import Row
from ingest.gaps import Gaps, Over
from ingest.journal import Delivery, Journal
from ingest.stores.base import DeadLetter

log = structlog.get_logger()


class Intake:
    """The `Sink` of one source.

    Args:
        source: its name: its signals are noted as its own.
        journal: where everything goes.
        catalog: what is known of signals.
        gaps: where gaps are kept.

    Attributes:
        set_aside_count: input that could not be read, since the agent started.
    """

    def __init__(self, source: str, journal: Journal, catalog: Catalog, gaps: Gaps) -> None:
        self._source = source
        self._journal = journal
        self._catalog = catalog
        self._gaps = gaps
        self._lock = threading.Lock()
        self.set_aside_count = 0

    def describe(self, info: SignalInfo, *, scale: float = 1.0, offset: float = 0.0) -> int:
        """See `edge.sources.base.Sink`."""
        index = self._catalog.describe(info, scale=scale, offset=offset)
        self._gaps.claim(self._source, index, self._catalog.guarantee(index))
        return index

    def index(self, key: SignalKey, guarantee: Guarantee = "end-to-end") -> int:
        """See `edge.sources.base.Sink`."""
        index = self._catalog.index(key, guarantee)
        self._gaps.claim(self._source, index, self._catalog.guarantee(index))
        return index

    def append(
        self, batch: Batch, *, delivery: Delivery | None = None, overflow: dict[int, int] | None = None
    ) -> "Future[None]":
        """See `edge.sources.base.Sink`."""
        self._gaps.precede()
        return self._journal.append(self._catalog.apply(batch), delivery=delivery, overflow=overflow)

    def backfill(self, batch: Batch, *, delivery: Delivery | None = None) -> "Future[None]":
        """See `edge.sources.base.Sink`."""
        self._gaps.precede()
        return self._journal.append(self._catalog.apply(batch), delivery=delivery, kind=RecordKind.BACKFILL)

    def write(self, rows: Sequence[Row]) -> "Future[None]":
        """See `edge.sources.base.Sink`."""
        return self._journal.write(rows)

    def set_aside(self, letters: Sequence[DeadLetter], *, delivery: Delivery | None = None) -> "Future[None]":
        """See `edge.sources.base.Sink`."""
        with self._lock:
            self.set_aside_count += len(letters)
        return self._journal.set_aside([self._attributed(letter) for letter in letters], delivery=delivery)

    def open_gap(self, source: str, cause: GapCause, since: Mapping[int, int], *, detail: str = "") -> None:
        """See `edge.sources.base.Sink`."""
        self._gaps.open(source, cause, since, detail=detail)

    def end_gap(
        self,
        source: str,
        until: Mapping[int, int] | int,
        *,
        state: Over,
        cause: GapCause | None = None,
        lost: int = 0,
        detail: str = "",
    ) -> None:
        """See `edge.sources.base.Sink`."""
        self._gaps.end(source, until, state=state, cause=cause, lost=lost, detail=detail)

    def note_gap(
        self,
        source: str,
        cause: GapCause,
        spans: Mapping[int, tuple[int, int]],
        *,
        state: Over = "ended",
        lost: Mapping[int, int] | int = 0,
        detail: str = "",
    ) -> None:
        """See `edge.sources.base.Sink`."""
        self._gaps.note(source, cause, spans, state=state, lost=lost, detail=detail)

    def gaps(self, source: str) -> list[Gap]:
        """See `edge.sources.base.Sink`."""
        return self._gaps.unsettled(source)

    def close_gaps(
        self,
        recovered: Mapping[str, int],
        *,
        state: Over = "closed",
        detail: str = "",
        rests: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    ) -> "Future[None]":
        """See `edge.sources.base.Sink`."""
        return self._gaps.close(recovered, state=state, detail=detail, rests=rests)

    def signals_of(self, source: str) -> dict[int, SignalKey]:
        """See `edge.sources.base.Sink`."""
        return {index: self._journal.signals[index] for index in self._gaps.of_source(source)}

    def last_times(self, signals: Iterable[int]) -> dict[int, int]:
        """See `edge.sources.base.Sink`."""
        return self._journal.identity.newest(signals)

    def _attributed(self, letter: DeadLetter) -> DeadLetter:
        """`letter` with the index of its signal, if that is known, so that the ledger counts it as rejected."""
        if letter.counts or not letter.signal:
            return letter
        try:
            index = self._journal.signals.find(SignalKey.parse(f"{letter.machine}/{letter.signal}"))
        except ValueError:
            return letter
        return letter if index is None else msgspec.structs.replace(letter, counts={index: letter.readings})
