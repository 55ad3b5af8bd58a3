"""The way of a response to the sink: decoded, appended, what of it may be acknowledged when, and what is missing."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final

import msgspec
import numpy as np
import structlog

from edge.sources.base import Delivery, Sink
from edge.sources.opcua import absurd
from edge.sources.opcua.columns import Columns, Opaque
from edge.sources.opcua.counters import Counters
from edge.sources.opcua.decode import Published, UndecodableError, decode, decode_again
from edge.sources.opcua.event_writer import joined
from edge.sources.opcua.events import EventReceiver
from edge.sources.opcua.gaps import GapKeeper
from edge.sources.opcua.repeats import Memory
from edge.sources.opcua.session import Receipt
from edge.sources.opcua.signals import SignalMap, overflow
from edge.sources.opcua.typed import Typed
from edge.sources.opcua.watchdog import Freshness
from fieldlab.model import Batch, BatchBuilder, Place, SignalKey, concat
from ingest.deadletter import once
from ingest.stores.base import DeadLetter

log = structlog.get_logger()

_FETCHED_AT_ONCE: Final = 1000  # of a longer gap the server has kept the newest at most
_TRANSFERRED: Final = 0x002D0000  # GoodSubscriptionTransferred
_FIRST_ROW: Final = np.zeros(1, np.uint32)
_FIRST: Final = np.zeros(1, np.bool_)
_AGAIN: Final = np.ones(1, np.bool_)
_NODE_GONE: Final = (np.uint32(0x80330000), np.uint32(0x80340000))  # BadNodeIdInvalid, BadNodeIdUnknown


class SubscriptionLostError(Exception):
    """The server has ended the subscription."""


class Receiver:
    """Takes the bodies of PublishResponses: decodes, appends, and says what to acknowledge when.

    Attributes:
        heard: when the newest response came, monotonic seconds.
        last_data: when the newest reading came, ns.
        gone: client handles whose node the server no longer has.
        freshness: when each item was heard.
        typed: what the server says of the types of the signals.
    """

    def __init__(
        self,
        name: str,
        url: str,
        signals: SignalMap,
        sink: Sink,
        counters: Counters,
        events: EventReceiver | None = None,
        keeper: GapKeeper | None = None,
    ) -> None:
        self._name = name
        self._events = events
        self._keeper = keeper or GapKeeper(name, sink)
        self._url = url
        self._signals = signals
        self._sink = sink
        self._counters = counters
        self._next: dict[int, int] = {}
        self._told: set[object] = set()  # what is wrong with a signal is logged once a session
        self._missing: dict[tuple[int, int], int] = {}  # → when the newest reading before it came, ns
        self._memory = Memory()
        self.heard = time.monotonic()
        self.last_data = 0
        self.gone: set[int] = set()
        self.freshness = Freshness()
        self.typed = Typed(name, url, signals, counters)

    def new_session(self) -> None:
        """A server that is asked again has not been silent yet."""
        self.gone.clear()
        self._told.clear()
        self.freshness.restart()
        self.heard = time.monotonic()

    def new_subscription(self) -> None:
        """Sequence numbers start anew; what was still missing is lost."""
        self._next.clear()
        self.lost(list(self._missing))
        self._keeper.start_anew()

    def go_on_with(self, subscription: int, available: Sequence[int]) -> None:
        """A subscription of before goes on: what the server holds and never came is `missing` now."""
        self._keeper.go_on()
        expected = self._next.get(subscription)
        if expected is None:
            wanted = sorted(available)  # an earlier process received some of them: the journal knows which
            self._next[subscription] = _successor(wanted[-1]) if wanted else 0
        else:
            wanted = sorted((n for n in available if _ahead(n, expected)), key=lambda n: (n - expected) % 0xFFFFFFFF)
            self._next[subscription] = _successor(wanted[-1]) if wanted else expected
        if wanted:
            self._keeper.hole()
        for number in wanted:
            self._missing.setdefault((subscription, number), self.last_data)

    def missing(self) -> list[tuple[int, int]]:
        """(subscription, sequence number) of the notifications to fetch, the oldest first."""
        return list(self._missing)

    def lost(self, numbers: Sequence[tuple[int, int]]) -> None:
        """Notifications that the server has no more. Which signals they held nobody knows: it may be any of them."""
        if not numbers:
            return
        since = min(self._missing.pop(number, self.last_data) for number in numbers)
        self._count_lost(len(numbers), since)
        self._heal()

    def _count_lost(self, count: int, since: int) -> None:
        self._counters.gaps += count
        if self._events is not None:
            self._events.lost()
        signals = self._signals.indices().tolist()
        log.error(
            "opcua_notifications_lost",
            source=self._name,
            url=self._url,
            notifications=count,
            since_ns=since,
            until_ns=time.time_ns(),
            signals=len(signals),
        )
        if signals:
            # At least one reading of at least one signal: each is marked, so that none claims to be complete.
            self._sink.append(Batch.of([], [], []), overflow=dict.fromkeys(signals, 1))
        self._keeper.notifications_lost(self._signals.indices(), count, time.time_ns())

    def _heal(self) -> None:
        if not self._missing:
            self._keeper.whole()

    def receive_again(self, body: bytes, subscription: int, sequence: int) -> Receipt | None:
        """Take a RepublishResponse; None if there is nothing to acknowledge."""
        self.heard = time.monotonic()
        arrival = time.time_ns()
        self._missing.pop((subscription, sequence), None)
        try:
            published = decode_again(body, arrival, subscription, sequence)
        except UndecodableError as e:
            return self._set_aside(body, e, arrival)
        self._counters.republished += 1
        if published.status_change not in (None, _TRANSFERRED):
            raise SubscriptionLostError(f"the server ended the subscription (status {published.status_change:#010x})")
        kept = self._keep(published, arrival, again=True)
        self._heal()
        return kept

    def receive(self, body: bytes) -> Receipt | None:
        """Take a response; None if there is nothing to acknowledge.

        Raises:
            SubscriptionLostError: if it says that the subscription has ended.
        """
        self.heard = time.monotonic()
        arrival = time.time_ns()
        count = self._counters
        try:
            published = decode(body, arrival, memory=self._memory)
        except UndecodableError as e:
            return self._set_aside(body, e, arrival)
        if any(published.results):
            count.acks_refused += sum(1 for result in published.results if result & 0x80000000)
        if published.keep_alive:
            return None
        self._look_for_gap(published.subscription, published.sequence)
        if published.status_change is not None:
            raise SubscriptionLostError(f"the server ended the subscription (status {published.status_change:#010x})")
        return self._keep(published, arrival, again=False)

    def _keep(self, published: Published, arrival: int, *, again: bool) -> Receipt:
        """Give the readings to the sink."""
        count = self._counters
        count.notifications += 1
        count.ignored += published.ignored
        columns = published.columns
        events = None
        if published.events and self._events is not None:
            events = self._events.receive(published.events, arrival)
        if columns is None:
            return Receipt(published.subscription, published.sequence, events or _kept_already())
        count.unkept += columns.unkept
        count.times_replaced += columns.times_replaced
        count.empty += columns.empty
        status = columns.batch.status
        flagged = bool(status.any())
        if flagged:
            near = (status - _NODE_GONE[0]) <= _NODE_GONE[1] - _NODE_GONE[0]
            if near.any():
                self.gone.update(columns.batch.signal[np.isin(status, _NODE_GONE)].tolist())
        self.freshness.note(columns)
        letters: list[DeadLetter] = []
        columns, wrong = absurd.split(columns)
        if wrong is not None:
            letters += self._keep_aside(wrong)
        batch = self._signals.to_batch(columns)
        if (shorter := self._signals.gone(columns)) is not None:
            batch = concat([batch, shorter])
        if columns.opaque:
            builder = BatchBuilder()
            letters += [self._unread(*one) for one in self.typed.expand(columns.opaque, builder)]
            batch = concat([batch, builder.build()])
        count.readings += len(batch)
        self.last_data = arrival
        delivery = Delivery(
            self._name,
            np.array([published.sequence & 0xFFFF], np.uint16),
            np.array([published.digest], np.uint64),
            _AGAIN if again else _FIRST,
            _FIRST_ROW,
        )
        lost = overflow(batch) if flagged or columns.opaque else {}
        self._keeper.note(batch, lost, again=again)
        kept = self._sink.append(batch, delivery=delivery, overflow=lost or None)
        if letters:
            # A session of their own: the window of the journal knows one content for each number.
            mine = msgspec.structs.replace(delivery, session=f"{self._name}.aside")
            kept = joined([kept, self._sink.set_aside(letters, delivery=mine)])
        if events is not None:
            kept = joined([kept, events])
        return Receipt(published.subscription, published.sequence, kept)

    def _keep_aside(self, wrong: Columns) -> list[DeadLetter]:
        """The letters of readings whose source time cannot be."""
        letters = absurd.letters(self._name, wrong, self._signals)
        for one in wrong.opaque:
            builder = BatchBuilder()
            letters += [self._unread(*failed) for failed in self.typed.expand([one], builder)]
            batch = builder.build()
            letters += absurd.of_batch(self._name, batch, np.full(len(batch), one.aside, np.int64), self._signals)
        self._counters.times_set_aside += sum(letter.readings for letter in letters)
        for letter in letters:
            if letter.signal not in self._told:
                self._told.add(letter.signal)
                log.error(
                    "opcua_time_impossible",
                    source=self._name,
                    url=self._url,
                    signal=letter.signal,
                    reason=letter.reason,
                )
        return letters

    def resend(self, letter: DeadLetter) -> "Future[None]":
        """Keep the readings of a letter with the server's time after all; see `edge.sources.base.Resending`."""
        try:
            batch = absurd.again(self._sink.index(SignalKey(Place.parse(letter.machine), letter.signal)), letter)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as e:
            raise ValueError("only readings with an impossible source time can be kept again") from e
        return self._sink.backfill(batch, delivery=once(letter))

    def _unread(self, one: Opaque, why: str) -> DeadLetter:
        """The letter of a structure that cannot be read."""
        key = self._signals.declared_key(one.handle)
        machine, signal = (self._url, "") if key is None else (key.place.path, key.name)
        if (signal, why) not in self._told:
            self._told.add((signal, why))
            log.error("opcua_structure_unreadable", source=self._name, url=self._url, signal=signal, reason=why)
        return DeadLetter(
            store=self._name,
            machine=machine,
            signal=signal,
            readings=1,
            reason=why,
            first=one.time,
            last=one.time,
            body=one.variant,
        )

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
        """Note notifications that never came: sequence numbers run 1, 2, …, 2^32-1, 1 (OPC 10000-4, 7.25.2)."""
        expected = self._next.get(subscription, 1) or sequence
        if _ahead(sequence, expected) and sequence != expected:
            missed = (sequence - expected) % 0xFFFFFFFF
            log.warning("opcua_sequence_gap", source=self._name, url=self._url, expected=expected, got=sequence)
            self._keeper.hole()
            if missed > _FETCHED_AT_ONCE:
                self._count_lost(missed - _FETCHED_AT_ONCE, self.last_data)
            for back in range(min(missed, _FETCHED_AT_ONCE), 0, -1):
                number = (sequence - back - 1) % 0xFFFFFFFF + 1
                self._missing.setdefault((subscription, number), self.last_data)
        self._next[subscription] = _successor(sequence)


def _kept_already() -> "Future[None]":
    """There is nothing to keep, so it may be acknowledged at once."""
    done: Future[None] = Future()
    done.set_result(None)
    return done


def _successor(sequence: int) -> int:
    return sequence % 0xFFFFFFFF + 1


def _ahead(sequence: int, expected: int) -> bool:
    """Whether `sequence` is `expected` or comes after it, around the wrap."""
    return (sequence - expected) % 0xFFFFFFFF < 0x7FFFFFFF
