"""Reads one broker: messages into batches, acknowledged after the journal has them.

A thread of its own does everything but the journal's work: wait for the socket, let packets gather for a moment (the
cost is the wakeup for each packet, not the packet), read what is there, give it to the journal as one batch, and
acknowledge, in order, what the journal has on disk.
"""

import asyncio
import random
import select
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.sources.base import Sink, SourceContext, SourceStatus
from edge.sources.mqtt.bell import Bell
from edge.sources.mqtt.client import MqttClient, refusal, unreachable
from edge.sources.mqtt.config import MqttConfig, client_id_of, filters_of, parse_url, validate
from edge.sources.mqtt.dropped import BrokerDrops
from edge.sources.mqtt.formats import dialect_of
from edge.sources.mqtt.frames import Frames
from edge.sources.mqtt.gaps import ConnectionGaps
from edge.sources.mqtt.intake import Intake
from edge.sources.mqtt.keeper import Keeper
from edge.sources.mqtt.large import Large
from edge.sources.mqtt.pending import Pending
from edge.sources.mqtt.presence import Presence
from edge.sources.mqtt.session import SessionFile
from edge.sources.mqtt.speaker import Message, Speaker
from edge.sources.mqtt.subscriptions import Subscriptions
from edge.sources.mqtt.tls import tls_context
from fieldlab.errors import ConfigError
from fieldlab.model import Batch
from fieldlab.model.status import BAD_NO_COMMUNICATION
from fieldlab.secrets import read_secret

_log = structlog.get_logger()

_PASS_MESSAGES = 1000
_TENDING = 0.2  # s between two looks at the keep-alive
_SMALL = 200  # readings that are not worth sorting
_PENDING_OCTETS = 64_000_000
_ANSWER = 10.0  # s: for CONNACK and SUBACK
_BACK_OFF = (0.5, 10.0)  # s: first and longest
_STEADY = 5.0  # s: a connection that lasted so long was a good one
_FLAPS = 3  # so many short ones in a row are no accident
_FAREWELL = 5.0  # s: at a stop, for the journal to finish what it has


class MqttSource:
    """One broker; see `edge.sources.base.Source`.

    Raises:
        ConfigError: if the table makes no sense as a whole.
    """

    def __init__(self, config: MqttConfig, context: SourceContext, sink: Sink) -> None:
        validate(config, context)
        self.name = context.name
        self._config = config
        self._sink = sink
        self._broker = parse_url(config.url)
        if config.password_file is not None:
            _at("password_file", read_secret, config.password_file)
        if self._broker.tls:
            tls_context(config)
        self._hint = '; if it speaks no MQTT 5, write protocol = "3.1.1"' if config.protocol == "5" else ""
        self._client_id = client_id_of(config, context)
        self._clean = config.session == "clean"
        self._session = SessionFile(context.data / f"{self.name}.session", self._broker.url, self._client_id)
        self._subscriptions = Subscriptions(self.name, filters_of(config), self._session, self._client_id)
        self._dialect = dialect_of(config, context, sink)
        self._speaker = self._dialect if isinstance(self._dialect, Speaker) else Speaker()
        if config.status_topic:
            self._speaker = Presence(config.status_topic, self._speaker)
        self._keeper = self._dialect if isinstance(self._dialect, Keeper) else Keeper()
        self._greeted = False
        self._present = False  # whether the broker had kept our session
        self._intake = Intake(self.name, self._dialect, redelivers=not self._clean)
        shared = any(each.startswith("$share/") for each in filters_of(config))
        self._gaps = ConnectionGaps(self.name, sink, clean=self._clean, shared=shared)
        self._drops = BrokerDrops(self.name, sink, self._session)
        self._subscriptions.other_answered = self._drops.answered
        self._resumed = False
        self._bell = Bell()
        self._pending = Pending(self._ring)
        self._client = MqttClient(config, self._broker, self._client_id, self._receive, clean=self._clean)
        self._client.receive_many = self._receive_many
        self._client.receive_large = self._receive_large
        self._client.on_connect = self._on_connect
        self._subscriptions.attach(self._client)
        self._client.on_disconnect = self._on_disconnect
        self._stopping = threading.Event()
        self._connected = False
        self._error = "not connected yet"
        self._reason = ""  # why the broker ended the connection, if it said so
        self._short = 0  # connections in a row that lasted less than `_STEADY`
        self._connected_at = 0.0
        self._heard: set[int] = set()  # signals with a reading since the last loss of the connection
        self._known: set[int] = set()
        self._last_data = 0
        self._counters: Counter[str] = Counter(
            connects=0, reconnects=0, journal_refused=0, lost_points=0, said=0, unsaid=0
        )

    async def run(self, stop: asyncio.Event) -> None:
        """As in `Source`."""
        if self._stopping.is_set():  # run once more, after an end
            self._stopping.clear()
            self._bell = Bell()
        done: Future[None] = Future()
        thread = threading.Thread(target=self._thread, args=(done,), name=self.name, daemon=True)
        thread.start()
        finished = asyncio.wrap_future(done)
        stopped = asyncio.create_task(stop.wait())
        try:
            waited: list[asyncio.Future[Any]] = [finished, stopped]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            self._stopping.set()
            self._bell.ring()
            await asyncio.shield(finished)

    def status(self) -> SourceStatus:
        """As in `Source`."""
        missing = self._subscriptions.refused
        error = self._error
        if self._short >= _FLAPS and time.monotonic() - self._connected_at < _STEADY:
            error = (
                f"the broker closed {self._short} connections in a row within {_STEADY:.0f} s each; if another client "
                f"uses client id {self._client_id!r}, give each agent its own name, or write `client_id`"
            )
        elif not error and missing:
            error = f"the broker refuses {len(missing)} subscription(s): " + "; ".join(
                f"{k}: {v}" for k, v in missing.items()
            )
        elif not error and (refused := dict(self._client.refused)):
            error = "the broker refuses what we publish: " + "; ".join(
                f"{k}: {v} (its access rules must allow client {self._client_id!r} to publish there)"
                for k, v in refused.items()
            )
        counters = {**self._counters, **self._intake.counters}
        counters |= {"acknowledgements_dropped": self._pending.dropped, "in_flight": self._pending.messages}
        counters |= {} if self._drops.seen is None else {"broker_dropped": self._drops.seen}
        counters |= getattr(self._dialect, "counters", {})
        return SourceStatus(
            name=self.name,
            kind="mqtt",
            url=self._broker.url,
            connected=self._connected and self._subscriptions.answered,  # before that, nothing is kept for us
            error=error,
            signals=len(self._known),
            missing=missing,
            last_data=self._last_data,
            counters=counters,
        )

    def _thread(self, done: Future[None]) -> None:
        try:
            self._live()
            failure = None
        except BaseException as e:  # noqa: BLE001  # it ends `run`, which raises it
            failure = e
        self._connected = self._subscriptions.answered = False
        self._client.drop()
        self._bell.close()
        if failure is None:
            done.set_result(None)
        else:
            self._error = f"stopped by a failure: {failure}"
            done.set_exception(failure)

    def _live(self) -> None:
        """Connect, serve, and again."""
        attempt = 0
        self._gaps.started()
        self._drops.started()
        while not self._stopping.is_set():
            began = time.monotonic()
            self._reason = ""
            self._client.bequeath(self._speaker.will())
            try:
                self._client.open()
            except (OSError, ValueError, ConfigError) as e:
                self._fail(unreachable(e, self._broker))
            else:
                self._serve(began + _ANSWER)
            if self._stopping.is_set():
                break
            steady = self._connected and time.monotonic() - began > _STEADY
            attempt = 0 if steady else attempt + 1
            self._short = 0 if steady else self._short + self._connected
            self._lose()
            first, longest = _BACK_OFF
            delay = min(longest, first * 2.0 ** min(attempt, 16)) * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
            self._idle(delay)
        self._part()

    def _serve(self, answer_by: float) -> None:
        """Read and acknowledge until the connection is lost or we are to stop."""
        client = self._client
        tend_at = 0.0
        while client.socket() is not None and not self._stopping.is_set():
            if not self._subscriptions.answered and time.monotonic() > answer_by:
                self._fail(
                    f"{self._broker.url} takes connections but does not answer within {_ANSWER:.0f} s{self._hint}"
                )
                return
            if self._subscriptions.answered and not self._resumed:
                self._resumed = True
                self._gaps.resumed(present=self._present)
                self._drops.subscribe(client)
            room = self._room()
            self._drops.look(reading=room > 0)
            if self._wait(0.5, reading=room > 0):
                if not client.unread and self._config.gather > 0:
                    client.confirm()
                    time.sleep(self._config.gather)
                client.budget = room
                self._drive(client.loop_read)
            self._speak()
            self._hand_over()
            self._gaps.missing(self._keeper.holes())
            self._acknowledge()
            if client.want_write():
                self._drive(client.loop_write)
            if client.socket() is None:
                return
            if (now := time.monotonic()) >= tend_at:
                tend_at = now + _TENDING
                self._drive(client.loop_misc if room > 0 else client.ping_unread)

    def _drive(self, step: Callable[[], object]) -> None:
        """Let paho work; what a broken broker makes it stumble over ends the connection, not us."""
        broken = f"{self._broker.url} sent what cannot be read as MQTT"
        try:
            if step() == MQTTErrorCode.MQTT_ERR_PROTOCOL:
                self._reason = self._reason or broken
        except Exception as e:  # noqa: BLE001  # paho raises many kinds for packets that are not MQTT
            self._fail(f"{broken}: {e!r}")

    def _room(self) -> int:
        """How many messages may be read now: what is not on disk yet is bounded."""
        if self._pending.octets >= _PENDING_OCTETS:
            return 0
        return min(_PASS_MESSAGES, self._config.in_flight - self._pending.messages)

    def _wait(self, timeout: float, *, reading: bool) -> bool:
        """Wait for the socket, the journal or a stop; whether there is something to read."""
        sock: Any = self._client.socket()
        if sock is None:
            return False
        if reading and (self._client.unread or getattr(sock, "pending", int)() > 0):
            return True  # what is here already, the socket does not tell; TLS has decrypted more than was asked for
        events = (select.POLLIN if reading else 0) | (select.POLLOUT if self._client.want_write() else 0)
        found = self._bell.wait(timeout, sock, events)
        if not reading and found & (select.POLLERR | select.POLLHUP):
            self._client.drop()  # else it would be reported at once, for ever
        return bool(reading and found & ~select.POLLOUT)

    def _ring(self) -> None:
        """Wake the thread; the bell may be another one than when the message was read."""
        self._bell.ring()

    def _idle(self, seconds: float) -> None:
        """Wait, while the journal may finish what it has."""
        until = time.monotonic() + seconds
        while not self._stopping.is_set() and (left := until - time.monotonic()) > 0:
            self._bell.wait(left)
            self._pending.release(self._client.generation)

    def _receive(
        self, topic: bytes, payload: bytes, arrival: int, *, mid: int, qos: int, redelivered: bool, retained: bool
    ) -> None:
        self._intake.add(topic, payload, arrival, mid=mid, qos=qos, redelivered=redelivered, retained=retained)
        self._last_data = arrival

    def _receive_many(self, frames: Frames) -> None:
        self._last_data = frames.arrival
        self._drops.take(frames)
        self._intake.add_many(frames)

    def _receive_large(self, large: Large) -> None:
        self._intake.add_large(large, self._config.max_payload)
        self._last_data = large.arrival

    def _hand_over(self) -> None:
        """Give what was read to the journal."""
        self._intake.add_rejected(self._keeper.rejected())
        keep = self._keeper.checkpoint()
        if not len(self._intake) and keep is None:
            return
        taken = self._intake.take(self._session.now.id)
        futures: list[Future[None]] = []
        lost: dict[int, int] | None = taken.lost or None
        for batch, delivery in ((taken.batch, taken.delivery), (taken.unacknowledged, None)):
            if batch is not None:
                before = len(self._heard)
                self._heard.update(_signals(batch))
                if len(self._heard) != before:
                    self._known |= self._heard
                futures.append(self._sink.append(batch, delivery=delivery, overflow=lost))
                lost = None
        for batch, delivery in ((taken.past, taken.past_delivery), (taken.unacknowledged_past, None)):
            if batch is not None:
                self._known.update(_signals(batch))
                futures.append(self._sink.backfill(batch, delivery=delivery))
        for letters, delivery in ((taken.letters, taken.letters_delivery), (taken.unacknowledged_letters, None)):
            if letters:
                futures.append(self._sink.set_aside(letters, delivery=delivery))
        generation = self._client.generation
        self._pending.add(futures, taken.acknowledge, generation, taken.messages, taken.octets, keep)

    def _acknowledge(self) -> None:
        """Acknowledge what is on disk."""
        ready, error = self._pending.release(self._client.generation)
        if ready:
            self._client.acknowledge(ready)
        if error is not None:
            self._counters["journal_refused"] += 1
            self._fail(f"the journal did not keep what was read: {error}; the broker will send it again")

    def _speak(self) -> None:
        """Publish what the dialect has to say, once the broker has answered the subscriptions."""
        if not self._subscriptions.answered or self._client.socket() is None:
            return
        if not self._greeted:
            self._greeted = True
            self._say(self._speaker.greetings(present=self._present))
        self._say(self._speaker.drain())

    def _say(self, messages: Sequence[Message]) -> None:
        if messages:
            said = self._client.say(messages)
            self._counters["said"] += said
            self._counters["unsaid"] += len(messages) - said

    def _fail(self, error: str) -> None:
        """Give this connection up."""
        self._reason = error
        self._client.drop()

    def _lose(self) -> None:
        """The connection is gone: each signal that was heard since the last loss gets one point that says so."""
        self._client.drop()  # from here on an acknowledgement would belong to another connection
        self._speaker.lost()
        self._drops.lost()
        self._greeted = False
        resumed, self._resumed = self._resumed, False
        was, self._connected, self._subscriptions.answered = self._connected, False, False
        url = self._broker.url
        closed = f"{url} closes the connection before it answers{self._hint}"
        reason = self._reason or (f"connection to {url} lost; connecting again" if was else closed)
        if reason != self._error:
            _log.warning("mqtt_connection_lost" if was else "mqtt_connection_failed", source=self.name, reason=reason)
        self._error = reason
        if resumed:
            self._gaps.lost(self._last_data, reason)
        if self._heard:
            signals = np.array(sorted(self._heard), np.uint32)
            n = len(signals)
            status = np.full(n, BAD_NO_COMMUNICATION, np.uint32)
            lost = Batch.of(signals, np.full(n, time.time_ns()), np.full(n, np.nan), status)
            self._heard.clear()
            self._counters["lost_points"] += n
            self._pending.add([self._sink.append(lost)], b"", self._client.generation, n, 0)

    def _part(self) -> None:
        """Leave in order: acknowledge what gets on disk soon, then say goodbye; a persistent session stays."""
        until = time.monotonic() + _FAREWELL
        client = self._client
        while client.socket() is not None and len(self._pending) and time.monotonic() < until:
            self._wait(0.1, reading=False)
            self._acknowledge()
            if client.want_write():
                client.loop_write()
        if self._greeted and client.socket() is not None:
            self._say(self._speaker.farewell())
            while client.unanswered and client.socket() is not None and time.monotonic() < until + 1:
                if self._wait(0.1, reading=True):  # to close a socket that holds answers would look like a loss
                    client.budget = _PASS_MESSAGES
                    self._drive(client.loop_read)
            self._intake.take("")  # it is not acknowledged, so it comes again
        client.disconnect()
        while client.want_write() and client.socket() is not None and time.monotonic() < until + 1:
            self._wait(0.1, reading=False)
            client.loop_write()
        self._error = "stopped"

    def _on_connect(
        self, _client: Client, _userdata: Any, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._fail(refusal(reason, self._config, self._client_id))
            return
        self._connected = True
        self._connected_at = time.monotonic()
        self._counters["reconnects"] += self._counters["connects"] > 0
        self._counters["connects"] += 1
        self._error = ""
        _log.info("mqtt_connected", source=self.name, url=self._broker.url, session_present=flags.session_present)
        granted = getattr(properties, "SessionExpiryInterval", None)
        if not self._clean and granted is not None and granted < round(self._config.session_expiry):
            _log.warning("mqtt_session_expiry_shortened", source=self.name, seconds=granted)
        self._present = flags.session_present
        self._speaker.connected(present=self._present)
        self._subscriptions.connected(self._client, present=flags.session_present)

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: Any,
        flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._reason = refusal(reason, self._config, self._client_id)


def _signals(batch: Batch) -> list[int]:
    """The signals of a batch; of a small one, some perhaps more than once."""
    signal: NDArray[Any] = batch.signal
    if len(signal) >= _SMALL:
        counted = int(signal.max()) < _SMALL * len(signal)
        signal = np.flatnonzero(np.bincount(signal)) if counted else np.unique(signal)
    found: list[int] = signal.tolist()
    return found


def _at(key: str, read: Any, file: Any) -> None:
    """Run `read(file)`, with its ConfigError pointing at `key`."""
    try:
        read(file)
    except ConfigError as e:
        raise ConfigError(str(e), key=key) from None
