"""What a dialect may say to its broker: a will, greetings, requests, a farewell. The source's thread sends it all."""

import msgspec


class Message(msgspec.Struct, frozen=True):
    """A message to publish.

    Attributes:
        topic: where to.
        payload: its bytes.
        qos: 0 or 1.
        retain: whether the broker keeps it for later subscribers.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


class Speaker:
    """A dialect that also speaks inherits this and overrides what it needs; each call comes from the source's thread.

    One connection: `will`, `connected`, `greetings`, any number of `drain`, then `lost`, or `farewell` at an orderly
    end.
    """

    def will(self) -> Message | None:
        """What the broker publishes when it loses us; asked anew before each attempt to connect."""
        return None

    def connected(self, *, present: bool) -> None:
        """The broker has accepted us, and nothing is read yet; `present`: it had kept our session."""

    def greetings(self, *, present: bool) -> list[Message]:
        """What to publish when the broker has answered the subscriptions; `present`: it had kept our session."""
        del present
        return []

    def drain(self) -> list[Message]:
        """What to publish now; asked after each pass over the socket, and at least once a second while connected."""
        return []

    def lost(self) -> None:
        """The connection is gone; what was published on it may not have arrived."""

    def farewell(self) -> list[Message]:
        """What to publish before an orderly end, after which the broker publishes no will."""
        return []
