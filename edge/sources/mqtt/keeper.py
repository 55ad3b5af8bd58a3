"""What a dialect may remember: state on disk before messages are acknowledged, messages given up later, and holes."""

from collections.abc import Callable

import msgspec

from edge.sources.base import Over


class Rejected(msgspec.Struct, frozen=True):
    """A message that was read before, and that goes to the dead letter now.

    Attributes:
        topic: where it came.
        payload: its bytes.
        arrival: when, ns.
        reason: why it cannot be read.
    """

    topic: bytes
    payload: bytes
    arrival: int
    reason: str


class Hole(msgspec.Struct, frozen=True):
    """An interval in which messages are missing, as their own numbers show.

    Attributes:
        signals: those that the messages may have been about.
        start: up to here nothing is missing, ns.
        end: from here on nothing is missing, ns.
        state: `ended`, if messages are surely missing; `unverifiable`, if nobody can say whether there were any.
        detail: in words.
        lost: readings of each signal known to be lost; 0 where nobody can count them.
    """

    signals: tuple[int, ...]
    start: int
    end: int
    state: Over
    detail: str
    lost: int = 0


class Keeper:
    """A dialect that remembers inherits this; each call comes from the source's thread.

    Attributes:
        redelivered: whether the broker has sent the message that is read now before (DUP).
    """

    redelivered = False

    def checkpoint(self) -> Callable[[], None] | None:
        """How to put on disk what the messages since the last checkpoint changed; None if they changed nothing.

        It is called when the journal has all that these messages brought, before they are acknowledged. What it
        raises costs the connection, so that the broker sends them again; the next checkpoint must hold it all.
        """
        return None

    def rejected(self) -> list[Rejected]:
        """Messages that the dialect kept back and gave up since the last time."""
        return []

    def holes(self) -> list[Hole]:
        """Where messages are missing, as was found since the last time."""
        return []
