"""One connection to a broker: publishes in order, and knows what became of every message.

It never connects again by itself: what was under way would go out once more, unasked, on a connection that its sender
knows nothing of. Whoever uses it makes a new one, and sends again what was not confirmed.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fieldlab.errors import ConfigError
from fieldlab.secrets import read_secret
from ingest.stores.base import StoreError, StoreMisconfiguredError, StoreUnavailableError
from ingest.stores.mqtt.config import MqttConfig, broker

_KEEPALIVE = 30  # s
_LARGEST_PACKET = 2**28  # of MQTT
_NOT_OURS_TO_MEND = frozenset({"Bad user name or password", "Not authorized", "Bad authentication method", "Banned"})
_NOBODY = "fieldlab/_nobody"  # a filter that is never subscribed
_log = structlog.get_logger()


class Message(NamedTuple):
    """A message to publish."""

    topic: str
    payload: bytes
    qos: int = 1


class Connection:
    """One connection, in paho's own thread. Its methods belong to one thread at a time.

    Args:
        config: the store's table.
        client_id: who we are.
        will: what the broker publishes when it loses us.
        on_message: called with topic and payload, in paho's thread.
        on_lost: called once when the connection is gone and nobody closed it, in paho's thread.

    Attributes:
        up: whether the broker has us.
        max_packet: bytes of a packet, as the broker and the configuration allow.
        broker_packet: bytes of a packet, as the broker allows, if it says so.
        ended: why the connection is gone, if the other side ended it.
    """

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        *,
        will: Message | None = None,
        on_message: Callable[[str, bytes], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self.up = False
        self.max_packet = int(config.max_packet)
        self.broker_packet = _LARGEST_PACKET
        self._config = config
        self._client_id = client_id
        self._host, self._port, self._secure = broker(config)
        self._five = config.protocol == "5"
        self._in_flight = config.in_flight
        self._changed = threading.Condition()
        self._answers: dict[int, str] = {}  # id → why it was refused, empty if it was not
        self._refusal = ""  # why the broker does not let us in
        self.ended = ""
        self._closing = False
        self._on_message, self._on_lost = on_message, on_lost
        self._client = self._make(will)

    def open(self) -> None:
        """Connect.

        Raises:
            StoreError: if the broker is away, or does not let us in.
        """
        try:
            self._client.connect(self._host, self._port, keepalive=_KEEPALIVE)
        except (OSError, ValueError) as e:
            raise StoreUnavailableError(f"{self._config.url} does not answer: {e}") from e
        self._client.loop_start()
        try:
            self._wait(lambda: self.up, "does not answer")
        except StoreError:
            self.close()
            raise

    def publish(self, messages: Sequence[Message]) -> dict[int, str]:
        """Publish in order, some in flight at a time, and wait until the broker has them all.

        What has QoS 0 is not acknowledged: a broker reads a connection in order, so its answer to a packet behind the
        last of them shows that it has read them.

        Returns:
            Which of them it refused, with its words (MQTT 5; with 3.1.1 it has none).

        Raises:
            StoreUnavailableError: if the connection is lost, or nothing is answered in time: any of them may have
                arrived.
        """
        refused: dict[int, str] = {}
        pending: dict[int, int] = {}
        with self._changed:
            self._answers.clear()  # of QoS 0: paho says that it wrote them
        for i, message in enumerate(messages):
            info = self._client.publish(message.topic, message.payload, message.qos)
            if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise StoreUnavailableError(f"{self._config.url}: {self.ended or paho.error_string(info.rc)}")
            if message.qos:
                pending[info.mid] = i
                if len(pending) >= self._in_flight:
                    self._settle(pending, refused, self._in_flight - 1)
        if any(not message.qos for message in messages):
            _, number = self._client.unsubscribe(_NOBODY)
            pending[number or 0] = -1
        self._settle(pending, refused, 0)
        refused.pop(-1, None)
        return refused

    def subscribe(self, filters: Sequence[str]) -> dict[str, str]:
        """Subscribe at QoS 1; which filters were refused, with the broker's words.

        Raises:
            StoreUnavailableError: as `publish`.
        """
        refused: dict[str, str] = {}
        for each in filters:
            _, number = self._client.subscribe(each, 1)
            words: dict[int, str] = {}
            self._settle({number or 0: 0}, words, 0)
            if words:
                refused[each] = words[0]
        return refused

    def close(self) -> None:
        """Disconnect in order; the broker publishes no will."""
        self._closing = True
        self.up = False
        self._client.disconnect()
        self._client.loop_stop()

    def _settle(self, pending: dict[int, int], refused: dict[int, str], left: int) -> None:
        """Wait until at most `left` of `pending` are unanswered."""

        def answered() -> bool:
            for number in [n for n in self._answers if n in pending]:
                words, index = self._answers.pop(number), pending.pop(number)
                if words:
                    refused[index] = words
            return len(pending) <= left

        self._wait(answered, f"has not answered {len(pending)} messages")

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        """Wait for `done`; the time allowed begins anew with every answer of the broker."""
        with self._changed:
            deadline = time.monotonic() + self._config.timeout
            while not done():
                if self._refusal:
                    raise StoreMisconfiguredError(f"{self._config.url} refuses {self._client_id!r}: {self._refusal}")
                if self.ended:
                    raise StoreUnavailableError(f"{self._config.url} is gone: {self.ended}")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise StoreUnavailableError(f"{self._config.url} {what} within {self._config.timeout:g} s")
                if self._changed.wait(left):
                    deadline = time.monotonic() + self._config.timeout

    def _make(self, will: Message | None) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if self._five else MQTTProtocolVersion.MQTTv311,
            clean_session=None if self._five else True,
            reconnect_on_failure=False,
        )
        client.connect_timeout = float(self._config.timeout)
        client.max_inflight_messages_set(65535)  # bounded here
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_publish, client.on_subscribe = self._published, self._subscribed
        client.on_unsubscribe, client.on_message = self._subscribed, self._received
        if will is not None:
            client.will_set(will.topic, will.payload, will.qos)
        try:
            if self._config.username:
                file = self._config.password_file
                client.username_pw_set(self._config.username, read_secret(file) if file else None)
            if self._secure:
                ca, cert, key = (self._config.ca_file, self._config.cert_file, self._config.key_file)
                client.tls_set(str(ca) if ca else None, str(cert) if cert else None, str(key) if key else None)
        except (ConfigError, OSError, ValueError) as e:
            raise StoreMisconfiguredError(str(e)) from e
        return client

    # ---- called by paho, in its thread ----

    def _connected(
        self, _client: paho.Client, _user: object, _flags: object, reason: ReasonCode, properties: Properties | None
    ) -> None:
        with self._changed:
            self.up = not reason.is_failure
            if reason.is_failure:
                _log.warning("mqtt_store_refused", client=self._client_id, url=self._config.url, reason=str(reason))
                if str(reason) in _NOT_OURS_TO_MEND:
                    self._refusal = f"{reason}; see username and password_file"
                else:
                    self.ended = str(reason)
            self._in_flight = min(self._in_flight, getattr(properties, "ReceiveMaximum", 65535))
            self.broker_packet = getattr(properties, "MaximumPacketSize", _LARGEST_PACKET)
            self.max_packet = min(self.max_packet, self.broker_packet)
            self._changed.notify_all()

    def _disconnected(
        self, _client: paho.Client, _user: object, _flags: object, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        with self._changed:
            was_up, self.up = self.up, False
            self.ended = self.ended or str(reason)
            self._changed.notify_all()
        if was_up and not self._closing:
            _log.warning("mqtt_store_disconnected", client=self._client_id, url=self._config.url, reason=str(reason))
            if self._on_lost is not None:
                self._on_lost()

    def _published(
        self, _client: paho.Client, _user: object, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._answer(mid, reason)

    def _subscribed(
        self, _client: paho.Client, _user: object, mid: int, reasons: Any, _properties: Properties | None
    ) -> None:
        given = reasons if isinstance(reasons, list) else [reasons]
        self._answer(mid, next((each for each in given if each.is_failure), None))

    def _answer(self, mid: int, reason: ReasonCode | None) -> None:
        with self._changed:
            self._answers[mid] = str(reason) if reason is not None and reason.is_failure else ""
            self._changed.notify_all()

    def _received(self, _client: paho.Client, _user: object, message: paho.MQTTMessage) -> None:
        if self._on_message is not None:
            self._on_message(message.topic, bytes(message.payload))
