"""The agent's own state, retained at a topic of the broker: `online`, or `offline` by our last will or farewell."""

from edge.sources.mqtt.speaker import Message, Speaker

ONLINE, OFFLINE = b"online", b"offline"


class Presence(Speaker):
    """Says whether we are there, beside what a dialect says.

    Args:
        topic: where.
        beside: the dialect's; it has no will of its own, since a connection has only one.
    """

    def __init__(self, topic: str, beside: Speaker) -> None:
        self._topic = topic
        self._beside = beside

    def will(self) -> Message:
        """As in `Speaker`."""
        return self._state(OFFLINE)

    def connected(self, *, present: bool) -> None:
        """As in `Speaker`."""
        self._beside.connected(present=present)

    def greetings(self, *, present: bool) -> list[Message]:
        """As in `Speaker`."""
        return [self._state(ONLINE), *self._beside.greetings(present=present)]

    def drain(self) -> list[Message]:
        """As in `Speaker`."""
        return self._beside.drain()

    def lost(self) -> None:
        """As in `Speaker`."""
        self._beside.lost()

    def farewell(self) -> list[Message]:
        """As in `Speaker`."""
        return [*self._beside.farewell(), self._state(OFFLINE)]

    def _state(self, state: bytes) -> Message:
        return Message(self._topic, state, qos=1, retain=True)
