"""The way of a response to the sink: decoded, appended, and what of it may be acknowledged when."""

import time
from typing import Final

import structlog

from edge.sources.base import Sink
from edge.sources.opcua.counters import Counters
from edge.sources.opcua.decode import UndecodableError, decode
from edge.sources.opcua.session import Receipt
from edge.sources.opcua.signals import SignalMap, overflow
from ingest.stores.base import DeadLetter

log = structlog.get_logger()

_NODE_GONE: Final = (0x80330000, 0x80340000)  # BadNodeIdInvalid, BadNodeIdUnknown


class SubscriptionLostError(Exception):
    """The server has ended the subscription."""


class Receiver:
    """Takes the bodies of PublishResponses: decodes, appends, and says what to acknowledge when.

    Attributes:
        heard: when the newest response came, monotonic seconds.
        last_data: when the newest reading came, ns.
        gone: client handles whose node the server no longer has.
    """

    def __init__(self, name: str, url: str, signals: SignalMap, sink: Sink, counters: Counters) -> None:
        self._name = name
        self._url = url
        self._signals = signals
        self._sink = sink
        self._counters = counters
        self._next: dict[int, int] = {}
        self.heard = time.monotonic()
        self.last_data = 0
        self.gone: set[int] = set()

    def new_session(self) -> None:
        """Sequence numbers start anew."""
        self._next.clear()
        self.gone.clear()
        self.heard = time.monotonic()

    def receive(self, body: bytes) -> Receipt | None:
        """Take a response; None if there is nothing to acknowledge.

        Raises:
            SubscriptionLostError: if it says that the subscription has ended.
        """
        self.heard = time.monotonic()
        arrival = time.time_ns()
        count = self._counters
        try:
            published = decode(body, arrival)
        except UndecodableError as e:
            return self._set_aside(body, e, arrival)
        count.acks_refused += sum(1 for result in published.results if result & 0x80000000)
        if published.keep_alive:
            return None
        count.notifications += 1
        count.ignored += published.ignored
        self._look_for_gap(published.subscription, published.sequence)
        if published.status_change is not None:
            raise SubscriptionLostError(f"the server ended the subscription (status {published.status_change:#010x})")
        columns = published.columns
        if columns is None:
            return Receipt(published.subscription, published.sequence, None)
        count.unkept += columns.unkept
        count.times_replaced += columns.times_replaced
        count.empty += columns.empty
        status = columns.batch.status
        if status.any():
            self.gone.update(columns.batch.signal[(status == _NODE_GONE[0]) | (status == _NODE_GONE[1])].tolist())
        batch = self._signals.to_batch(columns)
        count.readings += len(batch)
        self.last_data = arrival
        kept = self._sink.append(batch, overflow=overflow(batch) or None)
        return Receipt(published.subscription, published.sequence, kept)

    def _set_aside(self, body: bytes, error: UndecodableError, arrival: int) -> Receipt | None:
        """Bytes that nobody can read must not stop the others, and must not vanish either."""
        self._counters.undecodable += 1
        log.error("opcua_undecodable", source=self._name, url=self._url, error=str(error), bytes=len(body))
        letter = DeadLetter(
            store=self._name,
            machine=self._url,
            signal="",
            readings=1,
            reason=f"not a readable PublishResponse: {error}",
            first=arrival,
            last=arrival,
            body=body,
        )
        kept = self._sink.set_aside([letter])
        if not error.sequence:
            return None
        self._look_for_gap(error.subscription, error.sequence)
        return Receipt(error.subscription, error.sequence, kept)

    def _look_for_gap(self, subscription: int, sequence: int) -> None:
        """Count notifications that never came: sequence numbers run 1, 2, …, 2^32-1, 1 (OPC 10000-4, 7.25.2)."""
        expected = self._next.get(subscription, 1)
        missed = (sequence - expected) % 0xFFFFFFFF
        if 0 < missed < 0x7FFFFFFF:
            self._counters.gaps += missed
            log.error("opcua_sequence_gap", source=self._name, url=self._url, expected=expected, got=sequence)
        self._next[subscription] = sequence % 0xFFFFFFFF + 1
