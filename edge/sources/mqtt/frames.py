"""Splits what came from the socket into PUBLISH packets, many at a time (MQTT 5, sections 2.1 and 3.3).

Plain ones (QoS 0 or 1, properties of up to 127 bytes, 16 KB in all) are split by a short loop; the rest one by one.
Packets whose first byte, length and length of the topic are the same have the same layout: it is worked out once.
"""

import struct
from collections.abc import Callable, Sequence
from itertools import repeat

import msgspec

PUBLISH = 0x30
DUP, QOS, RETAIN = 0x08, 0x06, 0x01
_KEY = 5  # bytes that say where everything in a plain packet is: first byte, length of up to two, length of the topic
_LAYOUTS = 10_000  # remembered at most
_AT_ONCE = 64  # packets taken apart before we look at their properties: what follows long ones is taken apart again
_Fields = tuple[int, bytes, bytes, bytes, bytes]  # first byte, topic, message id, length of the properties, payload
_Layout = tuple[Callable[[bytes, int], _Fields], int]  # takes a packet apart; its bytes


class MalformedError(Exception):
    """A packet that no broker may send."""


class Frames(msgspec.Struct, eq=False):
    """Columns of PUBLISH packets, in the order of their arrival.

    Attributes:
        topics: as sent.
        payloads: as sent.
        heads: first byte of each packet: type, DUP, QoS, RETAIN.
        ids: message id of each, 2 bytes as sent; empty for QoS 0.
        arrival: when they were read, ns; the i-th arrived at `arrival` + i, so that no two of a signal share a time.
        octets: bytes of all of them.
    """

    topics: list[bytes] = []
    payloads: list[bytes] = []
    heads: list[int] = []
    ids: list[bytes] = []
    arrival: int = 0
    octets: int = 0

    def __len__(self) -> int:
        return len(self.topics)


_known: dict[bool, dict[bytes, _Layout]] = {False: {}, True: {}}


def _layout(key: bytes, *, five: bool) -> _Layout | None:
    """The layout of the packet that starts with `key`; None if it is not plain."""
    if len(key) < _KEY or key[0] & 0xF0 != PUBLISH or key[0] & QOS not in (0, 2):
        return None
    if key[1] < 0x80:
        start, stop = 4, 2 + key[1]
        size = key[2] << 8 | key[3]
    else:
        if key[2] >= 0x80:
            return None
        start, stop = 5, 3 + (key[1] & 0x7F | key[2] << 7)
        size = key[3] << 8 | key[4]
    number = 2 if key[0] & QOS else 0
    payload = stop - start - size - number - five
    if payload < 0 or not size:
        return None
    made = struct.Struct(f">B{start - 1}x{size}s{number}s{int(five)}s{payload}s")
    known = _known[five]
    if len(known) >= _LAYOUTS:
        known.clear()
    known[key] = made.unpack_from, stop
    return known[key]


def split_plain(data: bytes, at: int, most: int, frames: Frames, *, five: bool) -> int:
    """Add plain packets to `frames`, from `data[at]` on: up to `most`, until one that is not plain or not all there.

    Returns:
        Where the first byte is that was not taken.
    """
    began, n = at, len(frames)
    most += n
    while n < most:
        tried = min(_AT_ONCE, most - n)
        at = _split_some(data, at, tried, frames, five=five)
        if len(frames) < n + tried:
            break
        n += tried
    frames.octets += at - began
    return at


def _split_some(data: bytes, at: int, most: int, frames: Frames, *, five: bool) -> int:
    """As `split_plain`, without counting bytes."""
    found: list[_Fields] = []
    add, layouts, start = found.append, _known[five].get, at
    try:
        for _ in repeat(None, most):
            key = data[at : at + _KEY]
            layout = layouts(key) or _layout(key, five=five)
            if layout is None:
                break
            unpack, size = layout
            add(unpack(data, at))
            at += size
    except struct.error:
        pass  # the packet is not all there
    if not found:
        return at
    heads, topics, ids, properties, payloads = zip(*found, strict=True)
    if five and properties.count(b"\0") != len(found):
        payloads = _after_all_properties(properties, payloads)
        if (n := len(payloads)) < len(found):
            heads, topics, ids, at = heads[:n], topics[:n], ids[:n], start
            for _ in range(n):
                at = extent(data, at)[1]
    frames.heads += heads
    frames.topics += topics
    frames.ids += ids
    frames.payloads += payloads
    return at


def _after_all_properties(lengths: Sequence[bytes], rest: Sequence[bytes]) -> tuple[bytes, ...]:
    """The payloads, up to the first with properties of more than 127 bytes, or more than the packet has."""
    found: list[bytes] = []
    for length, both in zip(lengths, rest, strict=True):
        if length[0] >= 0x80 or length[0] > len(both):
            break
        found.append(both[length[0] :])
    return tuple(found)


def extent(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """Where the body of the packet at `data[at]` starts and where it ends, all there or not.

    Returns:
        Start and end; (0, at least so many bytes are needed) if even its length is not all there.

    Raises:
        MalformedError: if its length cannot be one.
    """
    length = shift = 0
    for i in range(at + 1, at + 5):
        if i >= len(data):
            return 0, i + 1
        byte = data[i]
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return i + 1, i + 1 + length
        shift += 7
    raise MalformedError("a packet's length has more than four bytes")


def split_one(data: bytes, head: int, at: int, stop: int, frames: Frames, *, five: bool) -> None:
    """Add the one PUBLISH of QoS 0 or 1 whose body is `data[at:stop]`.

    Its properties are skipped: without a Topic Alias Maximum in our CONNECT the topic is always in full.

    Raises:
        MalformedError: if it breaks the protocol.
    """
    topic = at + 2
    if topic > stop:
        raise MalformedError("a PUBLISH ends before its topic")
    number = topic + int.from_bytes(data[at:topic], "big")
    body = number + (2 if head & QOS else 0)
    if five:
        body = _after_properties(data, body, stop)
    if number == topic or body > stop:
        raise MalformedError("a PUBLISH without a topic, or shorter than it says")
    frames.topics.append(data[topic:number])
    frames.payloads.append(data[body:stop])
    frames.heads.append(head)
    frames.ids.append(data[number : number + 2] if head & QOS else b"")
    frames.octets += stop - at


def _after_properties(data: bytes, at: int, stop: int) -> int:
    """Where the properties that start at `at` end; their length is a variable byte integer (MQTT 5, section 1.5.5)."""
    length = shift = 0
    while at < stop and shift < 28:
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return at + length
        shift += 7
    raise MalformedError("the length of a PUBLISH's properties cannot be read")
