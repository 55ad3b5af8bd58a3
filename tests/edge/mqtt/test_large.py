"""Payloads of any size: read up to `max_payload`; beyond it set aside, never in memory whole, and never again."""

import itertools
import json
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.sources.mqtt.client import MqttClient
from edge.sources.mqtt.config import MqttConfig, parse_url
from edge.sources.mqtt.frames import Frames
from edge.sources.mqtt.large import KEPT, Large
from fieldlab.config import Size
from fieldlab.errors import ConfigError

TOPIC = "fieldlab/drachten/shavers/3/printer-1/nozzle"
steady = settings(deadline=None, max_examples=50)  # a slow machine is no fault


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_payload_that_is_too_large_is_set_aside_once(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any, protocol: Any
) -> None:
    broker = mosquitto()
    running = run(broker, sink, protocol=protocol, max_payload=Size(100_000))
    publish = publisher(broker).send
    huge = b"\xff" * 20_000_000
    publish(TOPIC, payload(1.0, 1), huge, payload(2.0, 2), b" " * 100_001, payload(3.0, 3))
    publish(TOPIC, huge[:300_000], qos=0)
    publish(TOPIC, payload(4.0, 4))
    wait_until(lambda: len(sink.values()) == 4 and running.counter("in_flight") == 0)
    assert sink.values() == [1.0, 2.0, 3.0, 4.0]
    letters = sink.letters()
    assert [(len(each.body), each.readings, each.signal) for each in letters] == [(KEPT, 1, "nozzle")] * 3
    assert "20,000,000 bytes, more than `max_payload` = 100,000" in letters[0].reason
    assert [running.counter(name) for name in ("too_large", "set_aside", "messages", "qos0")] == [3, 3, 7, 1]
    running.cut()
    wait_until(lambda: running.counter("connects") == 2 and running.source.status().connected)
    publish(TOPIC, payload(5.0, 5))
    wait_until(lambda: sink.values()[4:] == [5.0])
    assert running.counter("redelivered") == 0, "it was acknowledged"


def test_a_large_payload_is_acknowledged_after_it_is_on_disk_and_known_again(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, wait_until: Any
) -> None:
    broker = mosquitto()
    running = run(broker, sink, max_payload=Size(100_000))
    sink.hold = True
    publisher(broker).send(TOPIC, b"x" * 500_000)
    wait_until(lambda: len(sink.letters()) == 1)
    running.cut()
    wait_until(lambda: len(sink.letters()) == 2)
    (first, hash_, new), (second, again, old) = sink.deliveries()
    assert (first, hash_, new, old) == (second, again, False, True)


def test_ten_megabytes_are_read(mosquitto: Any, run: Any, sink: Any, publisher: Any, wait_until: Any) -> None:
    broker = mosquitto()
    running = run(broker, sink)
    start = time.time_ns() // 1_000_000 - 10_000_000
    values = [random.Random(3).random() for _ in range(300_000)]
    body = json.dumps({"value": values, "ts": [start + i for i in range(len(values))]})
    big = json.dumps({"value": 7.5, "note": "x" * 10_000_000})
    assert len(body) > 9_000_000
    publish = publisher(broker).send
    publish(TOPIC, body, big, b"[" * 10_000_000, b"\xff" * 10_000_000)
    wait_until(lambda: len(sink.letters()) == 2 and running.counter("in_flight") == 0, 60.0)
    found = sink.values()
    assert found == [*values, 7.5]
    assert [len(each.body) for each in sink.letters()] == [10_000_000] * 2


class Pieces:
    """A socket that gives what it holds in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def recv_into(self, buffer: bytearray) -> int:
        if not self.pieces:
            raise BlockingIOError
        piece = self.pieces.pop(0)
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None: ...


def packet(head: int, number: int, properties: bytes, payload: bytes) -> bytes:
    body = b"\x00\x03a/b" + (number.to_bytes(2, "big") if head & 6 else b"") + bytes([len(properties)]) + properties
    length, digits = len(body) + len(payload), bytearray()
    while True:
        length, digit = length >> 7, length & 0x7F
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([head, *digits]) + body + payload


@steady
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0x30, 0x32, 0x3A]),
            st.sampled_from([b"", b"\x01\x01", b"\x26\x00\x01a\x00\x01b"]),
            st.sampled_from([0, 1, 100, 63_990, 64_000, 64_001, 70_000, 199_990, 210_000, 5_000_000]),
        ),
        max_size=6,
    ),
    st.lists(st.integers(0, 2_000_000), max_size=6),
    st.integers(1, 3),
)
def test_any_sizes_in_any_pieces(messages: Any, cuts: Any, budget: int) -> None:
    """What is small comes whole, what is large its first bytes; all in order, whatever pieces it comes in."""
    config = MqttConfig(url="mqtt://host", max_payload=Size(KEPT))
    client = MqttClient(config, parse_url(config.url), "c", lambda *_a, **_k: None, clean=True)
    got: list[tuple[int, bytes, int]] = []

    def many(frames: Frames) -> None:
        got.extend((int.from_bytes(n, "big"), p, len(p)) for n, p in zip(frames.ids, frames.payloads, strict=True))

    def large(one: Large) -> None:
        assert one.topic == b"a/b"
        got.append((int.from_bytes(one.number, "big"), one.payload, one.octets))

    client.receive_many, client.receive_large = many, large
    bodies = [bytes([65 + i]) * size for i, (_, _, size) in enumerate(messages)]
    data = b"".join(packet(h, i + 1, p, bodies[i]) for i, (h, p, _) in enumerate(messages))
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [
        data[at : min(at + 200_000, stop)]
        for start, stop in itertools.pairwise(edges)
        for at in range(start, stop, 200_000)
    ]
    client._sock = Pieces(pieces)  # type: ignore[assignment]  # as much of a socket as is used
    for _ in range(len(pieces) + 2 * len(messages) + 2):
        client.budget = budget
        assert client.loop_read() == 0
        assert len(client._buffer) < 1_000_000, "a large one is not kept whole"
    client._sock = None
    assert got == [
        (i + 1 if head & 6 else 0, body if size <= KEPT else body[:KEPT], size)
        for i, ((head, _, size), body) in enumerate(zip(messages, bodies, strict=True))
    ]


@pytest.mark.parametrize("size", [0, 63_999, 2**28 + 1])
def test_limits_of_the_limit(mosquitto: Any, run: Any, sink: Any, size: int) -> None:
    broker = mosquitto(start=False)
    with pytest.raises(ConfigError) as caught:
        run(broker, sink, wait=False, max_payload=Size(size))
    assert caught.value.key == "max_payload"
