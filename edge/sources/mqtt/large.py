"""A message that is larger than `max_payload`: its first bytes are kept for the dead letter, the rest passes by.

The broker is not told of our limit (Maximum Packet Size): it would have to throw such messages away and say nothing
(MQTT 5, section 3.1.2.11.4). So it is counted here, set aside with its reason and acknowledged, and never comes again.
"""

import msgspec

from edge.sources.mqtt.frames import PUBLISH, QOS, Frames, MalformedError, split_one

KEPT = 64_000  # bytes of the payload: always as many, so that it is known again when the broker sends it again
_ROOM = 200_000  # bytes that hold the longest topic, most properties, and what is kept


class Large(msgspec.Struct, frozen=True):
    """One such message.

    Attributes:
        topic: as sent.
        payload: its first bytes.
        head: the packet's first byte.
        number: message id, 2 bytes; empty for QoS 0.
        arrival: when its end was read, ns.
        octets: how long its payload is.
    """

    topic: bytes
    payload: bytes
    head: int
    number: bytes
    arrival: int
    octets: int

    def reason(self, most: int) -> str:
        """Why it is not read, for the dead letter."""
        return f"the payload has {self.octets:,} bytes, more than `max_payload` = {most:,}; its first bytes are kept"


def is_begun(end: int, start: int, stop: int) -> bool:
    """Whether `take` may be called, when bytes up to `end` are there, of a packet whose body is from `start` to `stop`.

    Of a packet whose length is not all there `start` is 0.
    """
    return start > 0 and end >= min(stop, start + _ROOM)


def missing(end: int, at: int, start: int, stop: int, most: int) -> int:
    """How many bytes from `at` on are needed to go on with a packet that is not all there; else as in `is_begun`."""
    if stop - start > most and not is_begun(end, start, stop):
        return min(stop, start + _ROOM) - at
    return stop - at


def take(data: bytes, head: int, start: int, stop: int, arrival: int, *, five: bool) -> Large:
    """The message whose packet's body goes from `start` to `stop`, once it `is_begun`.

    Raises:
        MalformedError: if it is no message of QoS 0 or 1, or breaks the protocol.
    """
    if head & 0xF0 != PUBLISH or head & QOS > 2:
        raise MalformedError(f"a packet of {stop - start} bytes that is no message of QoS 0 or 1")
    frames = Frames([], [], [], [])
    split_one(data, head, start, min(stop, start + _ROOM), frames, five=five)
    rest = stop - min(stop, start + _ROOM)
    payload = frames.payloads[0]
    return Large(frames.topics[0], payload[:KEPT], head, frames.ids[0], arrival, len(payload) + rest)
