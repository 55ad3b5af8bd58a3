"""paho's client for one connection at a time: our loop reads the socket, and acknowledges when we say so.

paho keeps the connection, the session and the packets. It is driven by its calls for an external event loop; it never
reconnects by itself. `loop_read` reads what is there, and splits it itself; what is no PUBLISH of QoS 0 or 1 goes
paho's way. Private names used (paho is pinned below 2.3): `_packet_handle`, `_in_packet`, `_loop_rc_handle`,
`_packet_queue`, `_sock_close`, `_sock`, `_ssl_wrap_socket`, `_connect_timeout`, `_send_pingreq`, `_last_msg_out`,
`_ping_t`, `_last_bytes_received`, `_msgtime_mutex`, `MQTTMessage._topic`.
"""

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog
from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.sources.mqtt.config import Broker, MqttConfig
from edge.sources.mqtt.frames import DUP, PUBLISH, QOS, RETAIN, Frames, MalformedError, extent, split_one, split_plain
from edge.sources.mqtt.large import Large, is_begun, missing, take
from edge.sources.mqtt.speaker import Message
from edge.sources.mqtt.tls import WrongCertificateError, check_pin, pin_of, tls_context
from edge.sources.mqtt.tls_socket import TlsSocket
from edge.sources.mqtt.topics import is_shared
from fieldlab.errors import ConfigError
from fieldlab.secrets import read_secret

_CONNACK = 0x20
PUBACK = 0x40
PUBCOMP = 0x70
_CHUNK = 1 << 18  # bytes asked of the socket at once
_PIECES = 32  # read in one go, at most

_QUICK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux; it holds until data are sent

_log = structlog.get_logger()


class Receiver(Protocol):
    """Takes messages as they are read."""

    def __call__(
        self, topic: bytes, payload: bytes, arrival: int, *, mid: int, qos: int, redelivered: bool, retained: bool
    ) -> None:
        """Take one message; it may not raise."""
        ...


def _no_frames() -> Frames:
    return Frames([], [], [], [])


class MqttClient(Client):
    """One MQTT session, driven by one thread.

    Attributes:
        generation: the number of the connection; acknowledgements of an older one must not be sent.
        budget: how many messages `loop_read` may still read; the receiver may set it to 0.
        receive_many: takes messages instead of `receive`, many at once.
        receive_large: takes messages beyond `max_payload`.
        refused: topic → why the broker refuses what we publish there.

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
        self.receive_many: Callable[[Frames], None] | None = None
        self.receive_large: Callable[[Large], None] = lambda _large: None
        self.refused: dict[str, str] = {}
        self._topics_said: dict[int, str] = {}  # by message id, until the broker has answered
        self._large: Large | None = None  # its end is not here yet
        self._pass_by = 0  # bytes of it that are still to come
        self._verified = tls_context(config) if broker.tls else None
        self._tls_name = config.server_name or broker.host
        self._pin = pin_of(config)
        self._url = broker.url
        self._chunk = bytearray(_CHUNK)
        self._view = memoryview(self._chunk)
        self._buffer = bytearray()  # packets not taken yet, the last one perhaps not all there
        self._most = config.max_payload
        self._need = 0  # so many bytes make the first of them whole
        self._arrival = 0
        self.on_message = self._take
        self.on_publish = self._taken_or_refused
        if self._verified is not None:
            self.tls_set_context(self._verified)
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
        self._buffer.clear()
        self._need = self._pass_by = 0
        self._large = None
        self._topics_said.clear()
        return super().reconnect()

    def _ssl_wrap_socket(self, tcp_sock: Any) -> Any:
        """As in paho, but read in large pieces; the certificate is verified by the context, its name too."""
        assert self._verified is not None
        tcp_sock.settimeout(self._connect_timeout)
        try:
            secure = TlsSocket(tcp_sock, self._verified, self._tls_name)
            if self._pin:
                check_pin(self._pin, secure.certificate, self._url)
        except BaseException:
            tcp_sock.close()
            raise
        return secure

    def want_write(self) -> bool:
        """As in paho; encrypted bytes that wait for the kernel count."""
        return super().want_write() or (isinstance(self._sock, TlsSocket) and self._sock.unsent)

    def confirm(self) -> None:
        """Let the kernel confirm at once what has arrived.

        Brokers hold small packets back until the last one is confirmed (Nagle's algorithm), which a kernel does when
        we answer, or 40 ms later: what is to gather in our socket would wait in theirs.
        """
        sock: Any = self.socket()
        if sock is not None and _QUICK is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, _QUICK, 1)

    def loop_write(self) -> MQTTErrorCode:
        """As in paho; encrypted bytes that wait for the kernel go first."""
        if isinstance(self._sock, TlsSocket):
            try:
                if self._sock.flush():
                    return MQTTErrorCode.MQTT_ERR_SUCCESS
            except OSError:
                return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
        return super().loop_write()

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:  # noqa: ARG002  # paho's signature
        """Read what has arrived, up to `budget` messages; see `unread`.

        A piece is split before the next is read, so that memory is used again while the processor has it at hand.
        """
        rc = MQTTErrorCode.MQTT_ERR_SUCCESS
        for _ in range(_PIECES):
            more = False
            if not self.unread:
                rc, more = self._fill()
            if self.unread and (broken := self._digest()):
                rc = broken
            if rc or not more or self.budget <= 0 or self.socket() is None:
                break
        return self._loop_rc_handle(rc) if rc else rc

    def _fill(self) -> tuple[MQTTErrorCode, bool]:
        """Read a piece of what the socket has into the buffer; whether there may be more.

        Of a lost connection, what came before the loss is read first.
        """
        sock: Any = self.socket()
        if sock is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN, False
        try:
            count = sock.recv_into(self._chunk)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return MQTTErrorCode.MQTT_ERR_SUCCESS, False
        except OSError:
            count = 0
        if count == 0:
            return MQTTErrorCode.MQTT_ERR_CONN_LOST, False
        self._buffer += self._view[self._let_pass(count) : count]
        with self._msgtime_mutex:
            self._last_bytes_received = time.monotonic()
        return MQTTErrorCode.MQTT_ERR_SUCCESS, count == _CHUNK  # less was all: to ask again would cost an exception

    def _large_at(self, data: bytes, at: int, start: int, stop: int) -> Large | None:
        """The message at `at`, if it is too large and its first bytes are there."""
        if stop - start <= self._most or self.budget <= 0 or not is_begun(len(data), start, stop):
            return None
        found = take(data, data[at], start, stop, time.time_ns(), five=self._five)
        return found if found.octets > self._most else None

    def _let_pass(self, count: int) -> int:
        """How many of `count` bytes belong to a message that is too large; at its end it is handed over."""
        passing = min(count, self._pass_by)
        self._pass_by -= passing
        if self._large is not None and not self._pass_by:
            large, self._large = self._large, None
            self.receive_large(large)
        return passing

    def _digest(self) -> MQTTErrorCode:
        """Take whole packets from the buffer, up to `budget` messages."""
        data, at = bytes(self._buffer), 0
        self._buffer.clear()
        self._arrival = max(self._arrival, time.time_ns())
        generation = self.generation
        frames = _no_frames()
        try:
            while True:
                if self.budget <= 0:
                    self._need = 0
                    break
                before = len(frames)
                at = split_plain(data, at, self.budget, frames, five=self._five)
                self.budget -= len(frames) - before
                start, stop = extent(data, at)
                if (large := self._large_at(data, at, start, stop)) is not None:
                    self._deliver(frames)
                    frames = _no_frames()
                    self.budget -= 1
                    self._large, self._pass_by = large, stop - at
                    at += self._let_pass(len(data) - at)
                    continue
                if not start or stop > len(data):
                    self._need = missing(len(data), at, start, stop, self._most)
                    break
                if self.budget <= 0:
                    continue
                head = data[at]
                if head & 0xF0 == PUBLISH and head & QOS in (0, 2):
                    split_one(data, head, start, stop, frames, five=self._five)
                    self.budget -= 1
                else:
                    self._deliver(frames)
                    frames = _no_frames()
                    if rc := self._handle(head, data[start:stop]):
                        return rc
                    if generation != self.generation or self.socket() is None:
                        return MQTTErrorCode.MQTT_ERR_SUCCESS  # what follows belongs to a connection that is gone
                at = stop
        except MalformedError as e:
            _log.error("mqtt_malformed", client=self._client_id, error=str(e))
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        finally:
            self._deliver(frames)
        self._buffer += data[at:]
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle(self, head: int, body: bytes) -> MQTTErrorCode:
        """Let paho handle a packet."""
        if head == _CONNACK and body[1:] == b"\x01" and not self._five:  # paho would speak MQTT 3.1 from here on
            heard: Any = self.on_connect
            reason = ReasonCode(PacketTypes.CONNACK, "Unsupported protocol version")
            heard(self, None, ConnectFlags(session_present=False), reason, None)
            return MQTTErrorCode.MQTT_ERR_CONN_REFUSED
        packet = self._in_packet
        packet["command"], packet["packet"], packet["remaining_length"], packet["pos"] = (
            head,
            bytearray(body),
            len(body),
            0,
        )
        try:
            return self._packet_handle()
        except MalformedPacket as e:
            raise MalformedError(str(e)) from None
        finally:
            packet["command"] = 0

    @property
    def unread(self) -> bool:
        """Whether whole packets wait in the buffer: the socket will not say so."""
        return len(self._buffer) >= max(self._need, 2)

    def _deliver(self, frames: Frames) -> None:
        """Hand messages over, many at once if the receiver takes them so."""
        n = len(frames)
        if not n:
            return
        frames.arrival = self._arrival
        self._arrival += n
        if self.receive_many is not None:
            self.receive_many(frames)
            return
        for i, (topic, payload, head, number) in enumerate(
            zip(frames.topics, frames.payloads, frames.heads, frames.ids, strict=True)
        ):
            self._receive(
                topic,
                payload,
                frames.arrival + i,
                mid=int.from_bytes(number, "big"),
                qos=(head & QOS) >> 1,
                redelivered=head & DUP != 0,
                retained=head & RETAIN != 0,
            )

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

    def acknowledge(self, packets: bytes) -> None:
        """Send PUBACKs and PUBCOMPs that were made before, in one write."""
        self._packet_queue(PUBACK, packets, 0, 1)

    def bequeath(self, will: Message | None) -> None:
        """What the broker publishes when it loses us; it holds from the next connection on."""
        if will is None:
            self.will_clear()
        else:
            self.will_set(will.topic, will.payload, will.qos, will.retain)

    def say(self, messages: Sequence[Message]) -> int:
        """Publish; paho keeps what the socket does not take at once.

        Returns:
            How many it took; what it did not, it will not send.
        """
        said = 0
        for each in messages:
            info = self.publish(each.topic, each.payload, each.qos, each.retain)
            if info.rc == 0:
                said += 1
                if each.qos and not info.is_published():
                    self._topics_said[info.mid] = each.topic
        return said

    @property
    def unanswered(self) -> bool:
        """Whether the broker has still to answer what we published at QoS 1."""
        return len(self._topics_said) > 0

    def _taken_or_refused(
        self, _client: Client, _userdata: Any, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        """Keep what the broker refuses (MQTT 5; with 3.1.1 it cannot say so)."""
        topic = self._topics_said.pop(mid, None)
        if topic is None:
            return
        if not reason.is_failure:
            self.refused.pop(topic, None)
        elif topic not in self.refused:
            self.refused[topic] = str(reason)
            _log.error("mqtt_publish_refused", client=self._client_id, topic=topic, reason=str(reason))

    def ping_unread(self) -> None:
        """Show that we live while we do not read, so that neither side takes the connection for lost."""
        now = time.monotonic()
        if now - self._last_msg_out >= self.keepalive / 2:
            self._send_pingreq()
            self._last_msg_out = now
        self._ping_t = 0.0  # its answer is not read now, and must not be missed

    def subscribe_to(self, filters: Sequence[str], qos: int, *, always_retained: bool = False) -> int:
        """Subscribe; the answers come to `on_subscribe`, in this order.

        Retained messages come at a new subscription only (MQTT 5), unless they are to come always.

        Returns:
            The id of the request.
        """
        if not self._five:
            return self.subscribe([(each, qos) for each in filters])[1] or 0
        retain = 0 if always_retained else SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
        return (
            self.subscribe(
                [(f, SubscribeOptions(qos=qos, retainHandling=0 if is_shared(f) else retain)) for f in filters]
            )[1]
            or 0
        )

    def drop(self) -> None:
        """Close the socket without a word: the broker keeps the session and sends again what is not acknowledged."""
        self.generation += 1
        self._buffer.clear()
        self._sock_close()


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
    if isinstance(error, ConfigError | WrongCertificateError):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"{broker.url} is not trusted: {error.verify_message or error}; see `ca_file` and `server_name`, or, if it "
            "signed its own certificate, `pinned_certificate` (`fieldlab check` shows its fingerprint)"
        )
    return f"{broker.url} cannot be reached: {error or type(error).__name__}; is the broker running?"
