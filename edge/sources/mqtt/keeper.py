"""What a dialect may remember: state that is on disk before messages are acknowledged, and messages given up later."""

from collections.abc import Callable

import msgspec


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
