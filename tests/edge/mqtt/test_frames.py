"""Packets out of bytes: the same whatever pieces the bytes come in, and nothing but the declared error."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.sources.mqtt.frames import Frames, MalformedError, extent, split_one, split_plain

steady = settings(deadline=None)  # a slow machine is no fault
MESSAGES = st.lists(
    st.tuples(
        st.sampled_from([0x30, 0x31, 0x32, 0x33, 0x3A, 0x3B]),
        st.binary(min_size=1, max_size=200),
        st.integers(1, 65535),
        st.sampled_from([b"", b"\x01\x01", b"\x26\x00\x01a\x00\x01b", b"\x26\x00\x01a\x00\x80" + b"c" * 128]),
        st.one_of(st.binary(max_size=300), st.integers(0, 20_000).map(bytes)),
    ),
    max_size=8,
)


def variable(number: int) -> bytes:
    digits = bytearray()
    while True:
        number, digit = number >> 7, number & 0x7F
        digits.append(digit | (0x80 if number else 0))
        if not number:
            return bytes(digits)


def packet(head: int, topic: bytes, number: int, properties: bytes, payload: bytes, *, five: bool) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic + (number.to_bytes(2, "big") if head & 6 else b"")
    body += (variable(len(properties)) + properties if five else b"") + payload
    return bytes([head]) + variable(len(body)) + body


def read(data: bytes, frames: Frames, *, five: bool, most: int = 1000) -> int:
    """As the client does; where the first byte is that was not taken."""
    at = 0
    while True:
        at = split_plain(data, at, most, frames, five=five)
        start, stop = extent(data, at)
        if not start or stop > len(data):
            return at
        split_one(data, data[at], start, stop, frames, five=five)
        at = stop


@steady
@given(MESSAGES, st.booleans(), st.lists(st.integers(0, 5000), max_size=6), st.integers(1, 5))
def test_any_messages_in_any_pieces(messages: Any, five: bool, cuts: Any, most: int) -> None:
    data = b"".join(packet(*each, five=five) for each in messages)
    frames = Frames([], [], [], [])
    rest, before = b"", 0
    for cut in [*sorted(cuts), len(data)]:
        piece, before = rest + data[before:cut], max(before, cut)
        rest = piece[read(piece, frames, five=five, most=most) :]
    assert rest == b""
    found = list(zip(frames.heads, frames.topics, frames.ids, frames.payloads, strict=True))
    assert found == [(h, t, n.to_bytes(2, "big") if h & 6 else b"", p) for h, t, n, _, p in messages]


@steady
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_give_packets_or_the_declared_error(data: bytes, five: bool) -> None:
    frames = Frames([], [], [], [])
    try:
        at = read(b"\x32" + data, frames, five=five)
    except MalformedError:
        return
    assert at <= len(data) + 1
    assert all(frames.topics)


@pytest.mark.parametrize(
    "data",
    [
        b"\x32\xff\xff\xff\xff\x01",
        b"\x32\x01\x00",
        b"\x32\x04\x00\x00\x00\x01",
        b"\x32\x05\x00\x09abc",
        b"\x30\x04\x00\x01a\x05",
        b"\x30\x08\x00\x01a\xff\xff\xff\xff\x01",
    ],
)
def test_what_no_broker_may_send(data: bytes) -> None:
    with pytest.raises(MalformedError):
        read(data, Frames([], [], [], []), five=True)


class Counting(dict[bytes, Any]):
    """Layouts that count how often one is looked for: once for each packet that is taken apart."""

    looks = 0

    def get(self, key: bytes, default: Any = None) -> Any:
        self.looks += 1
        return super().get(key, default)


def test_properties_cost_one_look_a_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets with properties are not taken apart anew for each that comes before them, short or long."""
    for properties in (b"\x26\x00\x01a\x00\x01b", b"\x26\x00\x01a\x00\x80" + b"c" * 128):
        data = b"".join(packet(0x32, b"a/b", i + 1, properties, b"x", five=True) for i in range(500))
        frames = Frames([], [], [], [])
        known = Counting()
        monkeypatch.setattr("edge.sources.mqtt.frames._known", {True: known})
        assert read(data, frames, five=True) == len(data)
        assert len(frames) == 500
        assert known.looks <= 502 * 64, "at most as many as are taken apart at once"
        assert known.looks <= 501 or len(properties) > 127


def test_layouts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sources.mqtt.frames._LAYOUTS", 10)
    known: dict[bool, dict[bytes, Any]] = {False: {}, True: {}}
    monkeypatch.setattr("edge.sources.mqtt.frames._known", known)
    frames = Frames([], [], [], [])
    data = b"".join(packet(0x32, b"t", 1, b"", b"x" * n, five=True) for n in range(60))
    assert read(data, frames, five=True) == len(data)
    assert [len(each) for each in frames.payloads] == list(range(60))
    assert 0 < len(known[True]) <= 10
