"""A broker that answers by the book: each refusal is said in words, with what to do; and what we ask for, on the wire.

Reason codes: MQTT 5, sections 3.2.2.2 (CONNACK) and 3.14.2.1 (DISCONNECT); return codes: MQTT 3.1.1, 3.2.2.3.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edge.sources.mqtt.check import check
from edge.sources.mqtt.config import MqttConfig
from edge.sources.mqtt.discover import default_filters, discover
from fieldlab.errors import RefusedError

CONNECT, SUBSCRIBE = 0x10, 0x82


class Scripted:
    """Answers CONNECT with `connack`, SUBSCRIBE with what is granted, and says `then`; notes every filter."""

    def __init__(self, connack: bytes, then: bytes, *, five: bool) -> None:
        self.user, self.password_file = "", None
        self.filters: list[str] = []
        self._connack, self._then, self._five = connack, then, five
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._server.accept()
                threading.Thread(target=self._speak, args=(peer,), daemon=True).start()

    def _speak(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            while data := peer.recv(65536):  # each of our packets is small, and comes in one piece
                if data[0] == CONNECT:
                    peer.sendall(self._connack)
                elif data[0] == SUBSCRIBE:
                    at, count = 4 + self._five, 0
                    while at < len(data):
                        size = int.from_bytes(data[at : at + 2], "big")
                        self.filters.append(data[at + 2 : at + 2 + size].decode())
                        at, count = at + 3 + size, count + 1
                    body = data[2:4] + b"\0" * self._five + b"\x01" * count
                    peer.sendall(b"\x90" + bytes([len(body)]) + body + self._then)

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    made: list[Scripted] = []

    def start(connack: bytes = b"\x20\x03\0\0\0", then: bytes = b"", *, five: bool = True) -> Scripted:
        made.append(Scripted(connack, then, five=five))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.mark.parametrize(
    ("protocol", "code", "words"),
    [
        ("5", 0x84, 'protocol = "3.1.1"'),
        ("5", 0x85, "refuses client id 'line-3-0'; write another `client_id`"),
        ("5", 0x86, "check `username` and `password_file`"),
        ("5", 0x87, "check `username` and `password_file`"),
        ("5", 0x88, "Server unavailable"),
        ("5", 0x89, "Server busy"),
        ("5", 0x8A, "Banned"),
        ("5", 0x97, "Quota exceeded"),
        ("5", 0x9F, "Connection rate exceeded"),
        ("3.1.1", 1, 'protocol = "5"'),
        ("3.1.1", 2, "refuses client id 'line-3-0'; write another `client_id`"),
        ("3.1.1", 3, "Server unavailable"),
        ("3.1.1", 4, "check `username` and `password_file`"),
        ("3.1.1", 5, "check `username` and `password_file`"),
    ],
)
def test_a_refused_connection_is_said(
    scripted: Any,
    run: Any,
    sink: Any,
    configure: Any,
    context: Any,
    wait_until: Any,
    protocol: str,
    code: int,
    words: str,
) -> None:
    five = protocol == "5"
    broker = scripted(bytes((0x20, 2 + five, 0, code)) + b"\0" * five, five=five)
    running = run(broker, sink, wait=False, protocol=protocol)
    wait_until(lambda: words in running.source.status().error, what=f"{words} in {running.source.status().error}")
    assert not running.source.status().connected
    config = configure(broker, protocol=protocol)
    failed = [line.text for line in asyncio.run(check(config, context, seconds=0.1)) if line.level == "fail"]
    assert any(words.replace("line-3-0", "fieldlab-check")[:20] in text for text in failed), failed
    with pytest.raises(RefusedError, match=r"refuses|does not speak"):
        asyncio.run(discover(config, context, {"url": broker.url}, seconds=0.1))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0x8B, "Server shutting down"),
        (0x8D, "Keep alive timeout"),
        (0x8E, "another client uses client id 'line-3-0'"),
        (0x95, "Packet too large"),
        (0x97, "Quota exceeded"),
        (0x98, "Administrative action"),
    ],
)
def test_why_a_broker_ends_the_connection_is_said(
    scripted: Any, run: Any, sink: Any, wait_until: Any, code: int, words: str
) -> None:
    broker = scripted(then=bytes((0xE0, 2, code, 0)))
    running = run(broker, sink, wait=False)
    wait_until(lambda: words in running.source.status().error or running.counter("connects") > 8)
    assert running.counter("connects") >= 1, "it was there, and comes again"
    wait_until(lambda: running.counter("connects") >= 3)


def test_on_the_wire_a_bambu_printer_is_asked_for_its_reports_alone(
    scripted: Any, configure: Any, context: Any
) -> None:
    broker = scripted(b"\x20\x02\0\0", five=False)
    keys = {"format": "bambu", "protocol": "3.1.1", "session": "clean", "topic": "device/01P00A1", "machine": "p1s"}
    asyncio.run(check(configure(broker, **keys), context, seconds=0.1))
    assert broker.filters == ["device/01P00A1/report"]
    broker.filters.clear()
    config = MqttConfig(url=broker.url, protocol="3.1.1", topics=default_filters("bblp"))
    asyncio.run(discover(config, context, {"url": broker.url}, seconds=0.1))
    assert broker.filters == ["device/+/report"]
