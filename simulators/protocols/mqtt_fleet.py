"""Thousands of MQTT devices in one process, each with a connection of its own; MQTT 3.1.1, QoS 1.

paho takes a thread for each device. Here a device is an asyncio protocol that writes its frames by hand: CONNECT,
PUBLISH, PINGREQ, DISCONNECT go out; of what comes in, CONNACK and PUBACK are understood. A connection that is lost
stays lost: what was not acknowledged is counted. Frames: OASIS MQTT 3.1.1, chapter 3.
"""

import asyncio
import contextlib
import struct
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from simulators.machines import Reading
from simulators.protocols.mqtt_device import MqttError, payload
from simulators.scenarios.describe import topic

_KEEP_ALIVE = 60  # s
_IN_FLIGHT = 20  # unacknowledged messages of a device
_AT_ONCE = 100  # connections that are made side by side
_CONNACK, _PUBACK = 0x20, 0x40


class Device(asyncio.Protocol):
    """One device: its connection, and what it waits for.

    Attributes:
        place: of the machine whose readings `send` takes.
        taken: called with readings that the broker has acknowledged.
        told: as in `MqttDevice`: all signals.
        acknowledged: messages that the broker has.
        sent: messages that were written.
    """

    def __init__(self, client_id: str, user: str, password: str) -> None:
        self._hello = _connect(client_id, user, password)
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._number = 0
        self._pending: dict[int, Sequence[Reading]] = {}
        self._room = asyncio.Event()
        self._abandoned = False
        self.place = ""
        self.taken: Callable[[Sequence[Reading]], None] = lambda _: None
        self.told: frozenset[str] | None = None
        self.sent = 0
        self.acknowledged = 0
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As in `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        """As in `asyncio.Protocol`: these packets have one byte of length."""
        data = self._rest + data
        at = 0
        while at + 2 <= len(data) and at + 2 + data[at + 1] <= len(data):
            kind = data[at] & 0xF0
            if kind == _PUBACK:
                self.acknowledged += 1
                self._settle(int.from_bytes(data[at + 2 : at + 4], "big"))
            elif kind == _CONNACK and not self.ready.done():
                code = data[at + 3]
                if code:
                    self.ready.set_exception(MqttError(f"the broker refuses a device: code {code}"))
                else:
                    self.ready.set_result(None)
            at += 2 + data[at + 1]
        self._rest = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        """As in `asyncio.Protocol`."""
        self._transport = None
        self._room.set()
        if not self.ready.done():
            self.ready.set_exception(MqttError(f"the broker closed the connection of a device: {exc}"))

    def publish(self, topic: bytes, payload: bytes) -> bool:
        """Write one message; False if the connection is lost, which is then not counted as sent."""
        if self._transport is None:
            return False
        self._number = self._number % 65_535 + 1
        body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", self._number) + payload
        self._transport.write(b"\x32" + _length(len(body)) + body)
        self.sent += 1
        return True

    async def send(self, readings: Sequence[Reading]) -> None:
        """Publish readings of one machine, a message each; waits while too many are not acknowledged."""
        for reading in readings:
            while len(self._pending) >= _IN_FLIGHT and self._transport and not self._abandoned:
                self._room.clear()
                await self._room.wait()
            if self._abandoned:
                return
            if self.publish(topic(self.place, reading.signal).encode(), payload([reading], batch=False)):
                self._pending[self._number] = [reading]

    async def flush(self, patience: float = 30.0) -> int:
        """Wait until everything is acknowledged: how many messages are not, after `patience` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._pending and self._transport:
                    self._room.clear()
                    await self._room.wait()
        return len(self._pending)

    def abandon(self) -> None:
        """Publish nothing more."""
        self._abandoned = True
        self._room.set()

    def _settle(self, number: int) -> None:
        readings = self._pending.pop(number, None)
        if readings:
            self.taken(readings)
        self._room.set()

    def ping(self) -> None:
        """Say that we are there."""
        if self._transport:
            self._transport.write(b"\xc0\x00")

    def close(self) -> None:
        """Leave in order."""
        if self._transport:
            self._transport.write(b"\xe0\x00")
            self._transport.close()


class Fleet:
    """Many devices at one broker; an asynchronous context manager.

    Args:
        url: `mqtt://host:port`.
        names: a client id each.
        user: user name; empty for none.
        password: its password.
    """

    def __init__(self, url: str, names: Sequence[str], *, user: str = "", password: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme != "mqtt" or not parts.hostname:
            raise MqttError(f"{url}: not a broker's address; such as mqtt://127.0.0.1:1883")
        self._host, self._port = parts.hostname, parts.port or 1883
        self._names, self._user, self._password = names, user, password
        self._pinging: asyncio.Task[None] | None = None
        self.devices: list[Device] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        try:
            for at in range(0, len(self._names), _AT_ONCE):
                made = [
                    loop.create_connection(partial(Device, name, self._user, self._password), self._host, self._port)
                    for name in self._names[at : at + _AT_ONCE]
                ]
                self.devices += [device for _, device in await asyncio.gather(*made)]
                await asyncio.gather(*(device.ready for device in self.devices[at:]))
        except OSError as e:
            await self.__aexit__(None, None, None)
            raise MqttError(f"mqtt://{self._host}:{self._port}: device {len(self.devices) + 1}: {e}") from None
        self._pinging = asyncio.create_task(self._ping())
        return self

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_ALIVE / 2)
            for device in self.devices:
                device.ping()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pinging:
            self._pinging.cancel()
        for device in self.devices:
            device.close()
        await asyncio.sleep(0)

    @property
    def sent(self) -> int:
        """Messages written, of all devices."""
        return sum(device.sent for device in self.devices)

    @property
    def acknowledged(self) -> int:
        """Messages that the broker has, of all devices."""
        return sum(device.acknowledged for device in self.devices)


def _connect(client_id: str, user: str, password: str) -> bytes:
    flags = 0x02 | (0x80 if user else 0) | (0x40 if password else 0)
    body = _text("MQTT") + bytes([4, flags]) + struct.pack(">H", _KEEP_ALIVE) + _text(client_id)
    body += (_text(user) if user else b"") + (_text(password) if password else b"")
    return b"\x10" + _length(len(body)) + body


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">H", len(raw)) + raw


def _length(number: int) -> bytes:
    out = bytearray()
    while True:
        number, low = divmod(number, 128)
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)
