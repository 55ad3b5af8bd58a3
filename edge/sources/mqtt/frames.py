"""Splits what came from the socket into PUBLISH packets, many at a time (MQTT 5, sections 2.1 and 3.3).

Plain ones (QoS 0 or 1, without properties, up to 16 KB) are split by a short loop; the rest one by one.
"""

from itertools import repeat
from struct import Struct

import msgspec

PUBLISH = 0x30
DUP, QOS, RETAIN = 0x08, 0x06, 0x01
_START = Struct(">BBH").unpack_from  # first byte, length of up to 127, length of the topic
_NOT_PLAIN = -1


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


def _skips(*, properties: bool) -> list[int]:
    """First byte → bytes between topic and payload, for the plain ones."""
    skips = list(repeat(_NOT_PLAIN, 256))
    for flags in range(16):
        if flags & QOS in (0, 2):
            skips[PUBLISH | flags] = (2 if flags & QOS else 0) + properties
    return skips


_SKIPS = {False: _skips(properties=False), True: _skips(properties=True)}


def split_plain(data: bytes, at: int, most: int, frames: Frames, *, five: bool) -> int:
    """Add plain packets to `frames`, from `data[at]` on: up to `most`, until one that is not plain or not all there.

    Returns:
        Where the first byte is that was not taken.
    """
    end = len(data)
    skips = _SKIPS[five]
    topics, payloads, heads, ids = frames.topics, frames.payloads, frames.heads, frames.ids
    began = at
    for _ in range(most):
        if at + 5 > end:
            break
        head, length, size = _START(data, at)
        if length < 0x80:
            topic = at + 4
            stop = at + 2 + length
        else:
            second = data[at + 2]
            if second >= 0x80:
                break
            stop = at + 3 + (length & 0x7F | second << 7)
            size = data[at + 3] << 8 | data[at + 4]
            topic = at + 5
        number = topic + size
        skip = skips[head]
        body = number + skip
        if skip < 0 or stop > end or body > stop or not size:
            break
        if five and data[body - 1]:
            break  # it has properties
        topics.append(data[topic:number])
        payloads.append(data[body:stop])
        heads.append(head)
        ids.append(data[number : number + 2] if head & QOS else b"")
        at = stop
    frames.octets += at - began
    return at


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
