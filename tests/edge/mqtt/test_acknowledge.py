"""Acknowledgements as they are on the wire, between the source and a real broker: in order, and never too early."""

import contextlib
import random
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edge.sources.mqtt.frames import Frames, extent, split_plain

TOPIC = "fieldlab/drachten/shavers/3/printer-1/nozzle"
PUBACK, PUBLISH = 0x40, 0x30


class Wire:
    """Passes bytes between a client and a broker, and keeps those of each connection."""

    def __init__(self, broker: Any) -> None:
        self.user, self.password_file = broker.user, broker.password_file
        self._port = broker.port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._server.getsockname()[1]}"
        self.connections: list[tuple[bytearray, bytearray]] = []  # from the client, from the broker
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                broker = socket.create_connection(("127.0.0.1", self._port))
                up, down = bytearray(), bytearray()
                self.connections.append((up, down))
                self._sockets += [client, broker]
                for source, sink, kept in ((client, broker, up), (broker, client, down)):
                    threading.Thread(target=self._pass, args=(source, sink, kept), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                kept += data
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """End every connection."""
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._sockets.clear()

    def close(self) -> None:
        self._server.close()
        self.cut()

    def acknowledged(self, connection: int) -> list[int]:
        """Message ids of the PUBACKs of a connection, in order."""
        sent = bytes(self.connections[connection][0])
        return [int.from_bytes(body[:2], "big") for _, body in packets(sent, PUBACK)]

    def published(self, connection: int, *, five: bool) -> list[int]:
        """Message ids of the broker's messages of QoS 1 on a connection, in order."""
        frames = Frames([], [], [], [])
        for head, body in packets(bytes(self.connections[connection][1]), PUBLISH):
            length = bytearray()
            rest = len(body)
            while True:
                rest, digit = rest >> 7, rest & 0x7F
                length.append(digit | (0x80 if rest else 0))
                if not rest:
                    break
            split_plain(bytes([head]) + bytes(length) + body, 0, 1, frames, five=five)
        return [int.from_bytes(number, "big") for number in frames.ids if number]


def packets(raw: bytes, kind: int) -> Iterator[tuple[int, bytes]]:
    """First byte and body of the packets of a kind."""
    at = 0
    while at < len(raw):
        start, stop = extent(raw, at)
        if not start or stop > len(raw):
            return
        if raw[at] & 0xF0 == kind:
            yield raw[at], raw[start:stop]
        at = stop


@pytest.fixture
def wire() -> Iterator[Callable[[Any], Wire]]:
    """`wire(broker)` stands between a client and the broker."""
    made: list[Wire] = []

    def stand(broker: Any) -> Wire:
        made.append(Wire(broker))
        return made[-1]

    yield stand
    for each in made:
        each.close()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_in_the_order_of_arrival_also_across_a_reconnect(
    mosquitto: Any, run: Any, sink: Any, wire: Any, publisher: Any, payload: Any, wait_until: Any, protocol: str
) -> None:
    five = protocol == "5"
    broker = mosquitto(max_inflight_messages=0)
    between = wire(broker)
    running = run(between, sink, protocol=protocol)
    publish = publisher(broker).send
    sink.hold = True
    for i in range(10):  # ten passes, ten futures; every third message cannot be read
        publish(TOPIC, *(payload(float(n), n) if n % 3 else b"poison" for n in range(10 * i, 10 * i + 10)))
        wait_until(lambda i=i: running.counter("messages") == 10 * i + 10)
    assert between.acknowledged(0) == [], "nothing is on disk"
    order = list(range(len(sink.calls)))
    random.Random(4).shuffle(order)
    half = {0, 1, *order[: len(order) // 2]} - {len(order) - 1}  # the first pass is whole, others have gaps before them
    for i in half:
        sink.release(i, i + 1)
    pending = running.source._pending
    wait_until(lambda: not all(future.done() for future in pending._entries[0].futures), what="the first gap")
    wait_until(lambda: 0 < len(between.acknowledged(0)) == 100 - running.counter("in_flight"))
    first = between.published(0, five=five)
    early = between.acknowledged(0)
    assert first == sorted(first)
    assert early == first[: len(early)]

    between.cut()
    wait_until(lambda: running.counter("connects") == 2)
    wait_until(lambda: len(between.published(1, five=five)) >= len(first) - len(early))
    early = between.acknowledged(0)
    again = between.published(1, five=five)
    assert again == first[len(early) :], "the broker sends again what was not acknowledged, and all of it"
    for i in order:
        sink.release(i, i + 1)  # of the old connection: too late for an acknowledgement
    wait_until(lambda: running.counter("acknowledgements_dropped") == len(first) - len(early))
    assert between.acknowledged(1) == []
    sink.hold = False
    sink.release()
    wait_until(lambda: running.counter("in_flight") == 0)
    publish(TOPIC, payload(1000.0, 1000))
    wait_until(lambda: len(between.acknowledged(1)) == len(again) + 1)
    assert between.acknowledged(1) == between.published(1, five=five)
    running.stop()
    assert len(between.connections) == 2
