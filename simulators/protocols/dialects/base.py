"""What a dialect of MQTT is: readings become messages as that kind of hardware writes them.

A message carries what a correct reader makes of it (`told`), in the names and the resolution of the dialect: that is
the truth of such a machine. Where messages have no time of their own, those readings are not `timed`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from simulators.machines import Reading


class Message(NamedTuple):
    """One MQTT message, and what it tells."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    told: tuple[Reading, ...] = ()


class Dialect:
    """Messages of one machine.

    Args:
        place: `site/area/line/machine`.

    Attributes:
        will: what the broker says when the machine is gone; None for nothing.
        requests: topic filters on which it is asked something.
        told: the signals that the dialect can tell; None for all.
    """

    will: Message | None = None
    requests: tuple[str, ...] = ()
    told: frozenset[str] | None = None

    def __init__(self, place: str) -> None:
        self.place = place
        self.machine = place.rpartition("/")[2]

    def hello(self, now: int) -> list[Message]:
        """What is said after each connect; `now` in ns."""
        del now
        return []

    def encode(self, readings: Sequence[Reading]) -> list[Message]:
        """The messages of readings, ascending in time."""
        raise NotImplementedError

    def answer(self, topic: str, payload: bytes, now: int) -> list[Message]:
        """What is said to a request; `now` in ns."""
        del topic, payload, now
        return []


def by_time(readings: Sequence[Reading]) -> list[list[Reading]]:
    """Readings that are ascending in time, in groups of one time."""
    groups: list[list[Reading]] = []
    for reading in readings:
        if groups and groups[-1][0].ts == reading.ts:
            groups[-1].append(reading)
        else:
            groups.append([reading])
    return groups


def is_bad(reading: Reading) -> bool:
    """Whether a reading has no value."""
    return bool(reading.status & 0x80000000)
