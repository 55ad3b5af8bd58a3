"""What came while we listened: topics, counts and a few payloads of each, in bounded memory."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec

from edge.sources.mqtt.discovery.recognise import JSON, kin_of

LARGEST: Final = 1_000_000  # bytes of a payload that is looked at
_LARGEST_JSON: Final = 65_536
_TOPICS: Final = {JSON: 10_000}  # by kin: a broker with many topics must not hide the printers among them
_TOPICS_OF_A_DIALECT: Final = 3_000
_OCTETS: Final = 64_000_000  # of topics and payloads together
_FIRST: Final = {JSON: 4}  # payloads kept of each topic, and the newest
_FIRST_OF_A_DIALECT: Final = 30  # births, and partial reports: they build on one another


class Message(msgspec.Struct, frozen=True):
    """One message that was kept; `order` counts all that came."""

    order: int
    topic: str
    payload: bytes
    arrival: int
    retained: bool


class Heard(msgspec.Struct):
    """One topic.

    Attributes:
        kin: the format that its path looks like.
        live: messages published while we listened.
        retained: messages that were sent because we subscribed.
        large: messages with more bytes than are looked at.
        first: the first messages.
        last: the newest, if it is none of the first.
    """

    kin: str
    live: int = 0
    retained: int = 0
    large: int = 0
    first: list[Message] = []
    last: Message | None = None

    @property
    def kept(self) -> list[Message]:
        """What was kept, oldest first."""
        return self.first if self.last is None else [*self.first, self.last]


class Tally:
    """Counts messages by topic.

    Attributes:
        topics: topic → what came.
        messages: all of them.
        beyond: messages on topics that no room was left for.

    Args:
        octets: room for topics and payloads.
    """

    def __init__(self, octets: int = _OCTETS) -> None:
        self.topics: dict[str, Heard] = {}
        self.messages = 0
        self.beyond = 0
        self._room = octets
        self._of_kin: Counter[str] = Counter()

    def add(self, topic: str, payload: bytes, arrival: int, *, retained: bool) -> None:
        """Count a message, and keep it if there is room."""
        self.messages += 1
        heard = self._find(topic)
        if heard is None:
            self.beyond += 1
            return
        heard.retained += retained
        heard.live += not retained
        if len(payload) > (_LARGEST_JSON if heard.kin == JSON else LARGEST):
            heard.large += 1
            return
        room = self._room + (0 if heard.last is None else len(heard.last.payload))
        if len(payload) > room:
            return
        message = Message(self.messages, topic, payload, arrival, retained)
        if len(heard.first) < _FIRST.get(heard.kin, _FIRST_OF_A_DIALECT):
            heard.first.append(message)
            self._room -= len(payload)
        else:
            heard.last = message
            self._room = room - len(payload)

    def add_large(self, topic: str, *, retained: bool) -> None:
        """Count a message that is too large to be looked at."""
        self.messages += 1
        heard = self._find(topic)
        if heard is None:
            self.beyond += 1
        else:
            heard.large += 1
            heard.retained += retained
            heard.live += not retained

    def _find(self, topic: str) -> Heard | None:
        heard = self.topics.get(topic)
        if heard is None:
            kin = kin_of(topic)
            size = len(topic.encode(errors="replace"))
            if self._of_kin[kin] >= _TOPICS.get(kin, _TOPICS_OF_A_DIALECT) or size > self._room:
                return None
            self._room -= size
            self._of_kin[kin] += 1
            heard = self.topics[topic] = Heard(kin, first=[])
        return heard


def in_order(topics: dict[str, Heard], names: Iterator[str] | list[str]) -> list[Message]:
    """The kept messages of some topics, as they came."""
    return sorted((each for name in names for each in topics[name].kept), key=lambda each: each.order)
