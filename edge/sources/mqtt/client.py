"""paho's client for one connection at a time: our loop reads the socket, and acknowledges when we say so.

paho keeps the connection, TLS, the session and the packets. It is driven by its calls for an external event loop; it
never reconnects by itself. Private names used (paho is pinned below 2.3): `_packet_read`, `_in_packet`,
`_handle_publish`, `_loop_rc_handle`, `_packet_queue`, `_sock_close`, `_send_pingreq`, `_last_msg_out`, `_ping_t`,
`MQTTMessage._topic`. A faster reader replaces `loop_read` alone.
"""

import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.sources.mqtt.config import Broker, MqttConfig
from edge.sources.mqtt.tls import tls_context
from edge.sources.mqtt.topics import is_shared
from fieldlab.errors import ConfigError
from fieldlab.secrets import read_secret

_PUBACK = 0x40
_PUBCOMP = 0x70


class Receiver(Protocol):
    """Takes messages as they are read."""

    def __call__(
        self, topic: bytes, payload: bytes, arrival: int, *, mid: int, qos: int, redelivered: bool, retained: bool
    ) -> None:
        """Take one message; it may not raise."""
        ...


class MqttClient(Client):
    """One MQTT session, driven by one thread.

    Attributes:
        generation: the number of the connection; acknowledgements of an older one must not be sent.
        budget: how many messages `loop_read` may still read; the receiver may set it to 0.

    Args:
        config: the broker and our rights there.
        broker: where it is.
        client_id: our name; it is the name of the session.
        receive: takes the messages.
        clean: start without an old session, and leave none.
    """

    def __init__(self, config: MqttConfig, broker: Broker, client_id: str, receive: Receiver, *, clean: bool) -> None:
        five = config.protocol == "5"
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if five else clean,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self.generation = 0
        self.budget = 0
        self._config = config
        self._five = five
        self._receive = receive
        self.on_message = self._take
        if broker.tls:
            self.tls_set_context(tls_context(config))
        properties = Properties(PacketTypes.CONNECT) if five else None  # type: ignore[no-untyped-call]  # paho's
        if properties is not None:
            properties.ReceiveMaximum = config.in_flight
            properties.SessionExpiryInterval = 0 if clean else min(round(config.session_expiry), 0xFFFFFFFF)
        keepalive = max(1, round(config.keepalive))
        if five:
            self.connect_async(broker.host, broker.port, keepalive, clean_start=clean, properties=properties)
        else:
            self.connect_async(broker.host, broker.port, keepalive)

    def open(self) -> None:
        """Connect and send CONNECT; the answer comes to `on_connect`.

        Raises:
            OSError: the broker cannot be reached, or TLS is refused.
            ConfigError: the password's file cannot be used.
        """
        if self._config.username:
            file = self._config.password_file
            self.username_pw_set(self._config.username, None if file is None else read_secret(file))
        self.reconnect()

    def reconnect(self) -> MQTTErrorCode:
        """As in paho; the connection gets a new number."""
        self.generation += 1
        return super().reconnect()

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:  # noqa: ARG002  # paho's signature
        """Read what has arrived, up to `budget` messages."""
        while self.budget > 0:
            if self.socket() is None:
                return MQTTErrorCode.MQTT_ERR_NO_CONN
            rc = self._packet_read()
            if rc == MQTTErrorCode.MQTT_ERR_AGAIN:
                break
            if rc > 0:
                return self._loop_rc_handle(rc)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle_publish(self) -> MQTTErrorCode:
        """Parse a PUBLISH of QoS 0 or 1 (MQTT 5, section 3.3) without paho's objects; QoS 2 goes paho's way.

        Its properties are skipped: without a Topic Alias Maximum in our CONNECT the topic is always in full.
        """
        flags = self._in_packet["command"]
        qos = flags >> 1 & 3
        if qos > 1:
            return super()._handle_publish()
        packet = self._in_packet["packet"]
        try:
            at = 2 + (packet[0] << 8) + packet[1]
            topic = bytes(packet[2:at])
            mid = 0
            if qos:
                mid = (packet[at] << 8) + packet[at + 1]
                at += 2
            if self._five:
                at = _after_properties(packet, at)
        except IndexError:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        if not topic or at > len(packet) or (qos and not mid):
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        self.budget -= 1
        self._receive(
            topic,
            bytes(packet[at:]),
            time.time_ns(),
            mid=mid,
            qos=qos,
            redelivered=flags & 8 != 0,
            retained=flags & 1 != 0,
        )
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _take(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        self.budget -= 1
        self._receive(
            bytes(message._topic),  # noqa: SLF001  # `topic` decodes it anew at each use
            bytes(message.payload),
            time.time_ns(),
            mid=message.mid,
            qos=message.qos,
            redelivered=message.dup,
            retained=message.retain,
        )

    def acknowledge(self, messages: Sequence[tuple[int, int]]) -> None:
        """Send the acknowledgements of (id, QoS), in this order, in one write."""
        frames = np.empty((len(messages), 4), np.uint8)
        pairs = np.array(messages, np.uint16)
        frames[:, 0] = np.where(pairs[:, 1] == 1, _PUBACK, _PUBCOMP)
        frames[:, 1] = 2
        frames[:, 2] = pairs[:, 0] >> 8
        frames[:, 3] = pairs[:, 0] & 0xFF
        self._packet_queue(_PUBACK, frames.tobytes(), 0, 1)

    def ping_unread(self) -> None:
        """Show that we live while we do not read, so that neither side takes the connection for lost."""
        now = time.monotonic()
        if now - self._last_msg_out >= self.keepalive / 2:
            self._send_pingreq()
            self._last_msg_out = now
        self._ping_t = 0.0  # its answer is not read now, and must not be missed

    def subscribe_to(self, filters: Sequence[str], qos: int) -> int:
        """Subscribe; the answers come to `on_subscribe`, in this order.

        Retained messages come at a new subscription only (MQTT 5).

        Returns:
            The id of the request.
        """
        if not self._five:
            return self.subscribe([(each, qos) for each in filters])[1] or 0
        retain = SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
        return (
            self.subscribe(
                [(f, SubscribeOptions(qos=qos, retainHandling=0 if is_shared(f) else retain)) for f in filters]
            )[1]
            or 0
        )

    def drop(self) -> None:
        """Close the socket without a word: the broker keeps the session and sends again what is not acknowledged."""
        self.generation += 1
        self._sock_close()


def _after_properties(packet: bytes | bytearray, at: int) -> int:
    """Where the properties that start at `at` end; their length is a variable byte integer (MQTT 5, section 1.5.5)."""
    length = shift = 0
    while True:
        byte = packet[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return at + length
        shift += 7


def refusal(reason: ReasonCode, config: MqttConfig, client_id: str) -> str:
    """What a broker's refusal of a connection means, and what to do."""
    name = str(reason)
    if name in ("Bad user name or password", "Not authorized"):
        user = f"user {config.username!r}" if config.username else "an anonymous client"
        return f"the broker refuses {user}: {name}; check `username` and `password_file`"
    if name == "Unsupported protocol version":
        other = "3.1.1" if config.protocol == "5" else "5"
        return f'the broker does not speak MQTT {config.protocol}; write protocol = "{other}"'
    if name == "Client identifier not valid":
        return f"the broker refuses client id {client_id!r}; write another `client_id`"
    if name == "Session taken over":
        return f"another client uses client id {client_id!r}; give each agent its own name, or write `client_id`"
    return f"the broker refuses the connection: {name}"


def unreachable(error: Exception, broker: Broker) -> str:
    """Why a broker cannot be reached, and what to do."""
    if isinstance(error, ConfigError):
        return str(error)
    return f"{broker.url} cannot be reached: {error or type(error).__name__}; is the broker running?"
