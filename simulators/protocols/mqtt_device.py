"""A machine that publishes its readings over MQTT, QoS 1, with paho.

A topic a signal: `fieldlab/<site>/<area>/<line>/<machine>/<signal>`, with
`{"value": 1.5, "ts": 1763900000.123456, "status": 0}`, or with `batch` above 1 arrays:
`{"value": [..], "ts": [..], "status": [..]}`. Every message is kept until its PUBACK, and sent again after a
reconnect, so a subscriber can see it twice.
"""

import asyncio
import contextlib
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from simulators.machines import Reading
from simulators.protocols.dialects import Dialect, Message
from simulators.scenarios.describe import topic

_RECEIVE_MAXIMUM = 10  # unacknowledged messages that every broker takes; paho does not read the broker's own limit
_SESSION = 3600  # s that the broker keeps our session while we are away
_log = structlog.get_logger()


class MqttError(Exception):
    """The broker refuses us, or cannot be reached; the text says which broker and why."""


class MqttDevice:
    """Publishes readings of one machine, and tells when the broker has them.

    Args:
        url: `mqtt://host:port`.
        place: `site/area/line/machine`.
        sent: called on the event loop with readings that the broker has acknowledged.
        user: user name; empty for none.
        password: its password.
        protocol: MQTT 5 or 3.1.1.
        batch: how many readings of a signal go into one message.
        in_flight: how many messages may wait for their PUBACK, on the way or still in paho; `send` waits beyond that.
        dialect: how the machine speaks; None for the topics and payloads above.

    Attributes:
        refused: messages that the broker acknowledged with an error, and did not take.
        now: the machine's clock, ns.
    """

    def __init__(  # noqa: PLR0913  what a session has
        self,
        url: str,
        place: str,
        sent: Callable[[Sequence[Reading]], None],
        *,
        user: str = "",
        password: str = "",
        ca_file: str = "",
        protocol: Literal["5", "3.1.1"] = "5",
        batch: int = 1,
        in_flight: int = 1000,
        dialect: Dialect | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise MqttError(f"{url}: not a broker's address; such as mqtt://127.0.0.1:1883")
        secure = parts.scheme == "mqtts"
        self._url, self._host, self._port = url, parts.hostname, parts.port or (8883 if secure else 1883)
        self._place, self._sent, self._batch, self._limit = place, sent, batch, in_flight
        self._v5 = protocol == "5"
        self._dialect = dialect
        self._closing = False
        self._topics: dict[str, str] = {}
        self._waiting: dict[str, list[Reading]] = {}  # of batches not yet full
        self._pending: dict[int, list[Reading]] = {}  # mid → what it carries
        self._acked: deque[tuple[int, bool]] = deque()
        self._waking = False
        self._room = asyncio.Event()
        self._connected = asyncio.Event()
        self._refusal = ""
        self._abandoned = False
        self.refused = 0
        self.now: Callable[[], int] = time.time_ns
        client_id = "sim-" + place.replace("/", "-")
        version = MQTTProtocolVersion.MQTTv5 if self._v5 else MQTTProtocolVersion.MQTTv311
        clean = None if self._v5 else False
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id, clean_session=clean, protocol=version)
        if user:
            self._client.username_pw_set(user, password)
        if secure:
            try:
                self._client.tls_set_context(ssl.create_default_context(cafile=ca_file or None))
            except OSError as e:
                raise MqttError(f"{ca_file}: {e.strerror or e}") from None
        self._client.max_inflight_messages_set(min(in_flight, _RECEIVE_MAXIMUM))
        self._client.reconnect_delay_set(1, 5)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message
        if dialect and dialect.will:
            will = dialect.will
            self._client.will_set(will.topic, will.payload, will.qos, will.retain)

    @property
    def told(self) -> frozenset[str] | None:
        """The signals that its dialect can tell; None for all."""
        return self._dialect.told if self._dialect else None

    async def connect(self, patience: float = 10.0) -> None:
        """Connect; from then on it reconnects for ever.

        Raises:
            MqttError: if the broker cannot be reached or refuses us within `patience` seconds.
        """
        self._loop = asyncio.get_running_loop()
        options: dict[str, Any] = {}
        if self._v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves it untyped
            properties.SessionExpiryInterval = _SESSION
            options = {"clean_start": False, "properties": properties}
        try:
            await asyncio.to_thread(self._client.connect, self._host, self._port, 30, **options)
        except OSError as e:
            raise MqttError(f"{self._url}: cannot be reached: {e}") from None
        self._client.loop_start()
        try:
            await asyncio.wait_for(self._connected.wait(), patience)
        except TimeoutError:
            await self.close()
            raise MqttError(f"{self._url}: no answer within {patience:g} s") from None
        if self._refusal:
            await self.close()
            raise MqttError(f"{self._url}: refuses {self._place}: {self._refusal}")

    async def send(self, readings: Iterable[Reading]) -> None:
        """Publish readings; waits while too many are in flight. A batch that is not full waits for more, or `flush`."""
        if self._dialect:
            for message in self._dialect.encode(list(readings)):
                await self._hand_over(message)
            return
        for reading in readings:
            if self._batch <= 1 or not reading.timed:
                await self._publish(reading.signal, [reading])
                continue
            waiting = self._waiting.setdefault(reading.signal, [])
            waiting.append(reading)
            if len(waiting) >= self._batch:
                await self._publish(reading.signal, self._waiting.pop(reading.signal))

    async def flush(self, patience: float = 30.0) -> int:
        """Publish what waits in batches, and wait until everything is acknowledged.

        Returns:
            How many messages are still not acknowledged after `patience` seconds.
        """
        for signal in tuple(self._waiting):
            await self._publish(signal, self._waiting.pop(signal))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._pending:
                    self._room.clear()
                    await self._room.wait()
        return len(self._pending)

    def abandon(self) -> None:
        """Publish nothing more: whoever waits in `send` comes back, and what it still held is not sent."""
        self._abandoned = True
        self._room.set()

    async def close(self) -> None:
        """Disconnect in order; the broker keeps the session."""
        self._closing = True
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    async def _publish(self, signal: str, readings: list[Reading]) -> None:
        if signal not in self._topics:
            self._topics[signal] = topic(self._place, signal)
        body = payload(readings, self._batch > 1 and readings[0].timed)
        await self._hand_over(Message(self._topics[signal], body, told=tuple(readings)))

    async def _hand_over(self, message: Message) -> None:
        """Give a message to paho, when there is room."""
        while len(self._pending) >= self._limit and not self._abandoned:
            self._room.clear()
            await self._room.wait()
        if self._abandoned:
            return
        info = self._client.publish(message.topic, message.payload, message.qos, message.retain)
        if info.rc not in (
            MQTTErrorCode.MQTT_ERR_SUCCESS,
            MQTTErrorCode.MQTT_ERR_NO_CONN,
        ):  # without one, paho keeps it
            raise MqttError(f"{self._url}: {message.topic}: {paho.error_string(info.rc)}")
        self._pending[info.mid] = list(message.told)

    def _on_connect(self, _c: paho.Client, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        self._refusal = str(reason) if reason.is_failure else ""
        _log.info("mqtt_device_connected", place=self._place, refused=self._refusal)
        if self._dialect and not reason.is_failure:
            for request in self._dialect.requests:
                self._client.subscribe(request, qos=1)
            self._call(self._greet)
        self._call(self._connected.set)

    def _greet(self) -> None:
        if self._dialect and not self._closing:
            self._say(self._dialect.hello(self.now()))

    def _say(self, messages: Sequence[Message]) -> None:
        """Publish what is no reading: greetings and answers."""
        for message in messages:
            self._client.publish(message.topic, message.payload, message.qos, message.retain)

    def _on_message(self, _c: paho.Client, _u: Any, message: paho.MQTTMessage) -> None:
        self._call(self._answer, message.topic, message.payload)

    def _answer(self, topic: str, payload: bytes) -> None:
        if self._dialect and not self._closing:
            self._say(self._dialect.answer(topic, payload, self.now()))

    def _on_disconnect(self, _c: paho.Client, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        _log.info("mqtt_device_disconnected", place=self._place, reason=str(reason))

    def _on_publish(self, _c: paho.Client, _u: Any, mid: int, reason: ReasonCode, _p: Any) -> None:
        # paho holds a lock of its own here: only note it, and let the event loop do the work
        self._acked.append((mid, not reason.is_failure))
        if not self._waking:
            self._waking = True
            self._call(self._settle)

    def _settle(self) -> None:
        """On the event loop: hand over what was acknowledged since the last time."""
        self._waking = False
        taken: list[Reading] = []
        while self._acked:
            mid, good = self._acked.popleft()
            readings = self._pending.pop(mid, [])
            if good:
                taken += readings
            else:
                self.refused += 1
                _log.warning("mqtt_message_refused", place=self._place, signal=readings[0].signal if readings else "")
        self._room.set()
        if taken:
            self._sent(taken)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended; nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)


def payload(readings: Sequence[Reading], batch: bool) -> bytes:
    """The message of one reading, or of several as arrays. Times are epoch seconds with all six decimals."""
    if not batch:
        one = readings[0]
        if not one.timed:
            return msgspec.json.encode({"value": _value(one), "status": one.status})
        return msgspec.json.encode({"value": _value(one), "ts": _epoch(one.ts), "status": one.status})
    return msgspec.json.encode(
        {
            "value": [_value(r) for r in readings],
            "ts": [_epoch(r.ts) for r in readings],
            "status": [r.status for r in readings],
        }
    )


def _value(reading: Reading) -> float | str | None:
    return None if reading.status & 0x80000000 else reading.value


def _epoch(ts: int) -> msgspec.Raw:
    seconds, rest = divmod(ts, 1_000_000_000)
    return msgspec.Raw(f"{seconds}.{rest // 1000:06d}".encode())
